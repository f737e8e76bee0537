import { PawlError } from '../errors.ts'
import type { AttemptRef, Outcome, Store } from '../store/store.ts'
import type { Execution } from './execution.ts'
import { persist } from './persist.ts'

/** How an attempt ended, as the database recorded it. */
export type Settled =
  /** The execution has an outcome: this attempt's, or one that was there first. */
  | { kind: 'done'; outcome: Outcome; own: boolean }
  /** It was given back without one. */
  | { kind: 'released' | 'unknown' }
  /** Another attempt is the current one, and this one's failure does not count. */
  | { kind: 'superseded' }

export interface AttemptOptions {
  fingerprint: Buffer
  /** How long an outcome is kept, in ms. */
  retentionMs: number
  /** What a retry may do if this attempt ends without an outcome. */
  interrupted: 'released' | 'unknown'
}

/**
 * One try at running an execution, from the claim to the outcome. Nothing that an attempt answers is
 * final before `complete` or `release` has resolved.
 */
export class Attempt {
  readonly execution: Execution
  readonly fingerprint: Buffer
  /** Resolves when the database knows how the attempt ended; never rejects. */
  readonly settled: Promise<Settled>
  readonly #ref: AttemptRef
  readonly #store: Store
  readonly #options: AttemptOptions
  #abort: AbortController | null = null
  readonly #stopped: () => boolean
  #superseded: Error | null = null
  #settle!: (settled: Settled) => void

  /** @param stopped whether Pawl has stopped, and nothing may be tried any more */
  constructor(
    store: Store,
    ref: AttemptRef,
    name: { scope: string; key: string },
    options: AttemptOptions,
    stopped: () => boolean,
  ) {
    this.#store = store
    this.#ref = ref
    this.#options = options
    this.#stopped = stopped
    this.fingerprint = options.fingerprint
    // Few handlers ask for it, and a controller costs more than all the rest of this.
    const signal = () => {
      this.#abort ??= new AbortController()
      if (this.#superseded) this.#abort.abort(this.#superseded)
      return this.#abort.signal
    }
    this.execution = {
      id: ref.id,
      scope: name.scope,
      key: name.key,
      attempt: ref.attempt,
      get abortSignal() {
        return signal()
      },
    }
    this.settled = new Promise((resolve) => {
      this.#settle = resolve
    })
  }

  /**
   * Records the outcome and resolves to what was recorded, which may be another attempt's. If the
   * store cannot be reached, this goes on trying for as long as Pawl runs.
   *
   * @param failure whether this is a failure, which counts only from the current attempt
   */
  async complete(outcome: Outcome, failure: boolean): Promise<Settled> {
    try {
      const settled = await this.#record(outcome, failure)
      this.#settle(settled)
      return settled
    } catch (error) {
      await this.interrupt().catch(() => {})
      throw error
    }
  }

  /** Gives the execution back without an outcome: free to resume, or open what it did. */
  async release(status: 'released' | 'unknown'): Promise<void> {
    this.#superseded = new Error('This attempt is no longer the current one.')
    this.#abort?.abort(this.#superseded)
    try {
      await persist(() => this.#store.release(this.#ref, status), this.#stopped)
    } finally {
      this.#settle({ kind: status })
    }
  }

  /** The attempt ended without an outcome (crash, timeout, shutdown). */
  interrupt(): Promise<void> {
    return this.release(this.#options.interrupted)
  }

  async #record(outcome: Outcome, failure: boolean): Promise<Settled> {
    const completed = await persist(
      () =>
        this.#store.complete({
          ...this.#ref,
          outcome,
          retentionMs: this.#options.retentionMs,
          onlyIfCurrent: failure,
        }),
      this.#stopped,
    )
    if (completed.kind === 'stored') return { kind: 'done', outcome, own: true }
    const { found } = completed
    if (found?.outcome) return { kind: 'done', outcome: found.outcome, own: false }
    if (found) return { kind: 'superseded' }
    throw new PawlError(
      'execution-gone',
      `Execution ${this.#ref.id} was deleted while it was running; its outcome cannot be recorded.`,
      'Do not delete rows of running executions.',
    )
  }
}
