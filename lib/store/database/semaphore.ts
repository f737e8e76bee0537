/** A FIFO semaphore with a timeout, which limits how many operations run at a time. */

/** A FIFO semaphore. */
export class Semaphore {
  #free: number
  readonly #waiting = new Set<() => void>()

  /** @param permits how many holders it allows at a time */
  constructor(permits: number) {
    this.#free = permits
  }

  /** Resolves to a function that releases the permit, or to null on timeout. */
  acquire(timeoutMs: number): Promise<(() => void) | null> {
    if (this.#free > 0) {
      this.#free--
      return Promise.resolve(() => this.#release())
    }
    return new Promise((resolve) => {
      const proceed = () => {
        clearTimeout(timer)
        this.#waiting.delete(proceed)
        resolve(() => this.#release())
      }
      const timer = setTimeout(() => {
        this.#waiting.delete(proceed)
        resolve(null)
      }, timeoutMs)
      this.#waiting.add(proceed)
    })
  }

  #release(): void {
    const [next] = this.#waiting
    if (next) next()
    else this.#free++
  }
}
