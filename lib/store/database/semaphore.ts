/** Lets so many in at a time; the others wait in line, in the order in which they came. */
export class Semaphore {
  #free: number
  readonly #waiting = new Set<() => void>()

  constructor(count: number) {
    this.#free = count
  }

  /** Resolves to what gives the slot back, or to null if there is none in time. */
  take(timeoutMs: number): Promise<(() => void) | null> {
    if (this.#free > 0) {
      this.#free--
      return Promise.resolve(() => this.#giveBack())
    }
    return new Promise((resolve) => {
      const enter = () => {
        clearTimeout(timer)
        this.#waiting.delete(enter)
        resolve(() => this.#giveBack())
      }
      const timer = setTimeout(() => {
        this.#waiting.delete(enter)
        resolve(null)
      }, timeoutMs)
      this.#waiting.add(enter)
    })
  }

  #giveBack(): void {
    const [next] = this.#waiting
    if (next) next()
    else this.#free++
  }
}
