/** A program that starts others, and ends them in the opposite order. */
export class Program {
  readonly #endings: (() => unknown)[] = []
  readonly #goodbye: string
  #exiting: Promise<void> | undefined
  #exitingSince = 0

  /** @param goodbye what it says on Ctrl-C */
  constructor(goodbye: string) {
    this.#goodbye = goodbye
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => this.#interrupted())
    }
  }

  /** Starts everything; where that fails, says so and ends what has been started. */
  async run(start: () => Promise<void>): Promise<void> {
    try {
      await start()
    } catch (error) {
      if (!this.#exiting) this.fail(`The example could not start: ${(error as Error).message}`)
    }
  }

  /** How to end what has been started: called when the program ends, last one first. */
  atEnd(end: () => unknown): void {
    this.#endings.push(end)
  }

  fail(message: string): void {
    console.error(`\n  ${message}\n`)
    this.#exit(1)
  }

  #interrupted(): void {
    // npm and tsx pass on a Ctrl-C that the terminal has sent already: that is one and the same.
    if (this.#exiting && performance.now() - this.#exitingSince < 500) return
    // Pressed again: leave. The others end by themselves when they find that nobody is here.
    if (this.#exiting) process.exit(1)
    console.log(`\n  ${this.#goodbye}`)
    this.#exit(0)
  }

  #exit(code: number): void {
    this.#exitingSince = performance.now()
    this.#exiting ??= (async () => {
      for (const end of this.#endings.reverse()) await end()
      process.exit(code)
    })()
  }
}
