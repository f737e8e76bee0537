import { waitFor } from '../../helpers/wait-for.ts'

/** Holds handlers until the test lets them go on, in their order. */
export class Gate {
  readonly #waiting: (() => void)[] = []

  /** Called by the handler. */
  pass(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
    })
  }

  /** Resolves when a handler waits. */
  async reached(): Promise<void> {
    await waitFor('a handler at the gate', () => this.#waiting.length > 0)
  }

  /** Waits for a handler, and lets it go on. */
  async open(): Promise<void> {
    await this.reached()
    this.#waiting.shift()?.()
  }
}
