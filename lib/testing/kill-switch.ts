/**
 * Whether a process still lives, as far as its app can tell. Once it is dead, nothing that the app waits
 * for ever comes, so that no code of it goes on. It cannot be brought back.
 */
export class Life {
  /** Resolves at death. */
  readonly death: Promise<void>
  readonly #last = new Set<() => void>()
  #isOver = false
  #end!: () => void

  constructor() {
    this.death = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  get isOver(): boolean {
    return this.#isOver
  }

  die(): void {
    if (this.#isOver) return
    this.#isOver = true
    for (const act of this.#last) act()
    this.#last.clear()
    this.#end()
  }

  /**
   * Does what an operating system does when a process dies. It must not throw.
   * @returns forgets about it
   */
  atDeath(act: () => void): () => void {
    this.#last.add(act)
    return () => this.#last.delete(act)
  }

  /** The promise as the process sees it: it does not settle any more once the process is dead. */
  deliver<T>(work: PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      work.then(
        (value) => {
          if (!this.#isOver) resolve(value)
        },
        (error) => {
          if (!this.#isOver) reject(error)
        },
      )
    })
  }
}

/** What a dead process waits for. One for each who waits, since a shared one would keep them all. */
export function never(): Promise<never> {
  return new Promise(() => {})
}
