import { printable } from './start-error.ts'

/** How long all of the end may take, in ms. */
const END_MS = 90_000

/**
 * A program that starts others, and ends them in the opposite order. It ends on Ctrl-C, SIGTERM and SIGHUP,
 * also in the middle of its start, and only when all that it has started has ended.
 */
export class Program {
  readonly #endings: (() => unknown)[] = []
  /** Endings of what was started after the end had begun. */
  readonly #late: Promise<unknown>[] = []
  readonly #goodbye: string
  #starting: Promise<void> = Promise.resolve()
  #exiting: Promise<void> | undefined

  /** @param goodbye what it says on Ctrl-C */
  constructor(goodbye: string) {
    this.#goodbye = goodbye
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => this.#interrupted())
    }
    // After SIGHUP the terminal is gone, and what is printed to it is an error that nobody needs to see.
    for (const output of [process.stdout, process.stderr]) output.on('error', () => {})
  }

  /** Starts everything; where that fails, says so and ends what has been started. */
  async run(start: () => Promise<void>): Promise<void> {
    try {
      this.#starting = start()
      await this.#starting
    } catch (error) {
      if (!this.#exiting) this.fail(`The example could not start. ${printable(error)}`)
    }
  }

  /**
   * Says how to end what has just been started: the last one ends first.
   * @throws Error if the program is ending, which ends it at once
   */
  atEnd(end: () => unknown): void {
    if (!this.#exiting) {
      this.#endings.push(end)
      return
    }
    this.#late.push(attempt(end))
    throw new Error('The program is ending.')
  }

  fail(message: string): void {
    console.error(`\n  ${message}\n`)
    this.#exit(1)
  }

  #interrupted(): void {
    // Once is enough: a Ctrl-C comes from the terminal and from npm, which passes it on. Pressed again, it
    // does not leave the others behind either; each of them has a limited time to end.
    if (this.#exiting) return
    console.log(`\n  ${this.#goodbye}`)
    this.#exit(0)
  }

  #exit(code: number): void {
    this.#exiting ??= (async () => {
      setTimeout(() => process.exit(1), END_MS)
      for (const end of this.#endings.reverse()) await attempt(end)
      // A start that is under way fails now, as what it needs has ended, or when it calls `atEnd`.
      await this.#starting.catch(() => {})
      await Promise.all(this.#late)
      process.exit(code)
    })()
  }
}

/** What cannot be ended does not keep the program from ending the others. */
async function attempt(end: () => unknown): Promise<void> {
  try {
    await end()
  } catch (error) {
    console.error(error)
  }
}
