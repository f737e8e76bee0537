/** How long a replayed step waits for those that were recorded before it and that nobody asks for. */
const PATIENCE_MS = 1000

/**
 * Lets the results of steps out in the order of their positions, one a turn of the event loop: whatever
 * concurrent steps finish first (`Promise.race`) finishes first in every later attempt, however many
 * promises the handler put around each.
 */
export class Gate {
  /** Positions up to this one were recorded by earlier attempts; live ones come after. */
  readonly #recorded: number
  /** Recorded positions up to this one have passed, or nobody asks for them. */
  #replayed = 0
  /** The last live position that was taken. */
  #taken: number
  /** Live positions up to this one are decided. */
  #decided: number
  /** Live positions that are decided, beyond that. */
  readonly #early = new Set<number>()
  readonly #waiting = new Map<number, () => void>()
  #busy = false
  #patience: NodeJS.Timeout | undefined

  /** @param recorded how many entries were recorded by earlier attempts: positions 1 to n */
  constructor(recorded: number) {
    this.#recorded = recorded
    this.#taken = recorded
    this.#decided = recorded
  }

  /** The position of a step that is about to be recorded; it must `pass` or be `withdrawn`. */
  take(): number {
    return ++this.#taken
  }

  /** The last position that was taken. */
  get taken(): number {
    return this.#taken
  }

  /** A step that took a position and was not recorded. */
  withdraw(position: number): void {
    this.#decide(position)
    this.#release()
  }

  /** Resolves when it is this position's turn. */
  pass(position: number): Promise<void> {
    if (position <= this.#replayed) return Promise.resolve() // Nobody waited for it any longer.
    return new Promise((resolve) => {
      this.#waiting.set(position, resolve)
      this.#release()
    })
  }

  #release(): void {
    if (this.#busy || this.#waiting.size === 0) return
    // What is new comes after all that was recorded: it had not happened by then.
    const position = (this.#replayed < this.#recorded ? this.#replayed : this.#decided) + 1
    if (!this.#waiting.has(position)) {
      if (this.#replayed >= this.#recorded) return
      // They wait for one that was recorded before them: it comes soon, or never again since the code
      // has changed.
      this.#patience ??= setTimeout(() => this.#skip(), PATIENCE_MS).unref()
      return
    }
    clearTimeout(this.#patience)
    this.#patience = undefined
    const resolve = this.#waiting.get(position)
    this.#waiting.delete(position)
    if (position > this.#recorded) this.#decide(position)
    else this.#replayed = position
    this.#busy = true
    setImmediate(() => {
      this.#busy = false
      this.#release()
    })
    resolve?.()
  }

  /** Waits no longer for recorded steps that nobody has asked for. */
  #skip(): void {
    this.#patience = undefined
    const recorded = [...this.#waiting.keys()].filter((p) => p <= this.#recorded)
    this.#replayed = Math.min(this.#recorded, ...recorded.map((p) => p - 1))
    this.#release()
  }

  #decide(position: number): void {
    this.#early.add(position)
    while (this.#early.delete(this.#decided + 1)) this.#decided++
  }
}
