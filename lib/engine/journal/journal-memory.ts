/** Counts the memory that journals take which were read from the database. */

/** How large the journals in memory may be together, in bytes; a single one may be larger. */
const MAX_BYTES = 128 * 1024 ** 2

/** When what found no room is tried again, in ms: after a second, with jitter. */
export const memoryPauseMs = () => Math.round(500 + Math.random() * 1000)

/** The journals that this process has in memory. What its attempts add to them is small beside what they read. */
export class JournalMemory {
  #bytes = 0

  /** Whether there is no room for another journal. */
  get isFull(): boolean {
    return this.#bytes >= MAX_BYTES
  }

  /**
   * Counts a journal, until the returned function is called.
   * @param must whether it is counted in any case
   * @returns null if there is no room for it
   */
  reserve(bytes: number, must: boolean): (() => void) | null {
    if (!must && this.#bytes > 0 && this.#bytes + bytes > MAX_BYTES) return null
    this.#bytes += bytes
    return () => {
      this.#bytes -= bytes
    }
  }
}
