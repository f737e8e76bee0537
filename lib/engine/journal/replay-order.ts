/** Delivers the results of recorded steps to the code in the order in which they were recorded. */

/** How long recorded steps wait for an earlier one that the code has not called, in ms. */
const SKIP_AFTER_MS = 1000

/**
 * Delivers the results of steps in the order of their positions, one per turn of the event loop. The step
 * that wins a `Promise.race` therefore wins it in every later attempt too, however many promises the
 * handler wraps around each step.
 */
export class ReplayOrder {
  /** Positions 1 to this one were recorded by earlier attempts; live positions come after. */
  readonly #recordedCount: number
  /** Recorded positions up to this one were released or skipped. */
  #replayedUpTo = 0
  /** The last live position that was reserved. */
  #lastReserved: number
  /** Live positions up to this one were released or cancelled. */
  #settledUpTo: number
  /** Live positions beyond `#settledUpTo` that were cancelled. */
  readonly #settledAhead = new Set<number>()
  readonly #waiting = new Map<number, () => void>()
  /** Whether a result was released in this turn of the event loop. */
  #hasReleased = false
  #skipTimer: NodeJS.Timeout | undefined

  /** @param recordedCount how many entries were recorded by earlier attempts: positions 1 to n */
  constructor(recordedCount: number) {
    this.#recordedCount = recordedCount
    this.#lastReserved = recordedCount
    this.#settledUpTo = recordedCount
  }

  /**
   * Reserves the next position for a step that is about to be recorded. The caller must then call
   * `waitForTurn` or `cancel` with it, otherwise later steps wait forever.
   */
  reserve(): number {
    return ++this.#lastReserved
  }

  /** The last position that was reserved. */
  get lastReserved(): number {
    return this.#lastReserved
  }

  /** Frees the reserved position of a step that was not recorded after all. */
  cancel(position: number): void {
    this.#settle(position)
    this.#releaseNext()
  }

  /** Resolves when all earlier positions were released. */
  waitForTurn(position: number): Promise<void> {
    if (position <= this.#replayedUpTo) return Promise.resolve() // It was skipped: the others did not wait for it.
    return new Promise((resolve) => {
      this.#waiting.set(position, resolve)
      this.#releaseNext()
    })
  }

  #releaseNext(): void {
    if (this.#hasReleased || this.#waiting.size === 0) return
    // Live results come after all recorded ones, since they had not happened when those were recorded.
    const isReplaying = this.#replayedUpTo < this.#recordedCount
    const position = (isReplaying ? this.#replayedUpTo : this.#settledUpTo) + 1
    if (!this.#waiting.has(position)) {
      if (!isReplaying) return
      // The code has not called the next recorded step yet. It calls it soon, or never if it has changed.
      this.#skipTimer ??= setTimeout(() => this.#skip(), SKIP_AFTER_MS).unref()
      return
    }
    clearTimeout(this.#skipTimer)
    this.#skipTimer = undefined
    const resolve = this.#waiting.get(position)
    this.#waiting.delete(position)
    if (position > this.#recordedCount) this.#settle(position)
    else this.#replayedUpTo = position
    this.#hasReleased = true
    setImmediate(() => {
      this.#hasReleased = false
      this.#releaseNext()
    })
    resolve?.()
  }

  /** Skips recorded positions that the code has not called, up to the first one that waits. */
  #skip(): void {
    this.#skipTimer = undefined
    const recorded = [...this.#waiting.keys()].filter((p) => p <= this.#recordedCount)
    this.#replayedUpTo = Math.min(this.#recordedCount, ...recorded.map((p) => p - 1))
    this.#releaseNext()
  }

  #settle(position: number): void {
    this.#settledAhead.add(position)
    while (this.#settledAhead.delete(this.#settledUpTo + 1)) this.#settledUpTo++
  }
}
