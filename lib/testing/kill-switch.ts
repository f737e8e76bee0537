/** The switch that kills a simulated process: stops its promises and frees what it held. */

/**
 * Kills a simulated process. Once killed, no promise that the app waits for settles, so that none of its
 * code continues. A killed process cannot be revived.
 */
export class KillSwitch {
  /** Resolves when the process is killed. */
  readonly killed: Promise<void>
  readonly #listeners = new Set<() => void>()
  #isKilled = false
  #resolveKilled!: () => void

  constructor() {
    this.killed = new Promise((resolve) => {
      this.#resolveKilled = resolve
    })
  }

  get isKilled(): boolean {
    return this.#isKilled
  }

  kill(): void {
    if (this.#isKilled) return
    this.#isKilled = true
    for (const listener of this.#listeners) listener()
    this.#listeners.clear()
    this.#resolveKilled()
  }

  /**
   * Calls the listener when the process is killed, to do what an operating system does then. The listener
   * must not throw.
   * @returns a function that removes the listener
   */
  onKill(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A promise that settles like the given one, unless the process is killed before. */
  untilKilled<T>(promise: PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => {
          if (!this.#isKilled) resolve(value)
        },
        (error) => {
          if (!this.#isKilled) reject(error)
        },
      )
    })
  }
}

/**
 * A promise that never settles, for a dead process to wait for. Each call creates a new one: a shared one
 * would keep every waiting function in memory.
 */
export function neverSettles(): Promise<never> {
  return new Promise(() => {})
}
