import { CancelledError, PawlError } from '../errors/index.ts'
import type { RunStatement, TransactionHost } from '../store/database/transaction-host.ts'
import type { Entry, StepStore } from '../store/step-store.ts'
import type { AttemptRef, Ending, Outcome, Store, Unfinished } from '../store/execution-store.ts'
import type { Execution } from './execution.ts'
import { Journal } from './journal/journal.ts'
import type { JournalLimits } from './limits.ts'
import { openOutcome, sealOutcome } from './outcome-encryption.ts'
import { persist } from './retry/retry-while-unavailable.ts'
import { type ExecutionParts, RunningExecution } from './running-execution.ts'
import { compensate, UndoLog } from './steps/compensation.ts'
import type { Sealer } from './values/encryptor.ts'
import { encodeError } from './values/value-codec.ts'

/** How an attempt ended, as the database recorded it. */
export type Settled =
  /** The execution has an outcome: this attempt's, or one that was there first. */
  | { kind: 'done'; outcome: Outcome; own: boolean }
  /** It was given back without one. */
  | { kind: 'released' | 'unknown' | 'parked' }
  /** It sleeps until something arrives or its time comes. */
  | { kind: 'suspended' }
  /** Another attempt is the current one, and this one's failure does not count. */
  | { kind: 'superseded' }

/** How an attempt ends without an outcome. */
export interface Interruption extends Omit<Ending, 'error'> {
  /** Why, for people. */
  error?: Error
}

/** What the error of an interruption is sealed as. */
export const LAST_ERROR = 'last error'

/** What attempts need of the process they run in. */
export interface AttemptTools {
  store: Store
  steps: StepStore
  sealer: Sealer
  limits: JournalLimits
  /** Whether Pawl has stopped, and nothing may be tried any more. */
  stopped: () => boolean
}

export interface AttemptOptions {
  scope: string
  key: string
  fingerprint: Buffer
  /** Whether an attempt that ended without an outcome may be run again; undefined: if it has a journal. */
  resumable: boolean | undefined
  /** What earlier attempts have recorded, in the order of replay. */
  recorded: readonly Entry[]
  /** Whether a worker runs it, and not a client's request. */
  recovering: boolean
  /** What the code holds of it. Default: an Execution. */
  make?: (parts: ExecutionParts, attempt: Attempt) => RunningExecution
}

/**
 * One try at running an execution, from the claim to the outcome. Nothing that an attempt answers is
 * final before `complete` or `release` has resolved.
 */
export class Attempt {
  readonly fingerprint: Buffer
  /** Resolves when the database knows how the attempt ended; never rejects. */
  readonly settled: Promise<Settled>
  readonly #execution: RunningExecution
  readonly #journal: Journal
  readonly #undoLog = new UndoLog()
  /** Of a request that is a transaction, and whether steps could not be recorded while it is open. */
  #transaction: { tx: unknown; blocks: boolean } | undefined
  #endTransaction: () => void = () => {}
  #releasing: Promise<Settled> | undefined
  readonly #ref: AttemptRef
  readonly #tools: AttemptTools
  readonly #options: AttemptOptions
  #abort: AbortController | null = null
  #onHalt: (() => void) | undefined
  #superseded: Error | null = null
  #settle!: (settled: Settled) => void
  #settledAlready = false

  constructor(tools: AttemptTools, ref: AttemptRef, options: AttemptOptions) {
    this.#tools = tools
    this.#ref = ref
    this.#options = options
    this.fingerprint = options.fingerprint
    this.settled = new Promise((resolve) => {
      this.#settle = (settled) => {
        this.#settledAlready = true
        resolve(settled)
      }
    })
    this.#journal = new Journal(tools.steps, tools.sealer, ref, options.recorded, tools.limits, {
      stopped: tools.stopped,
      superseded: () => this.#superseded,
      onSuperseded: () => this.#supersede(),
      onCancelling: () => this.halt(new CancelledError()),
    })
    const { make = (parts) => new RunningExecution(parts) } = options
    const parts = {
      id: ref.id,
      scope: options.scope,
      key: options.key,
      attempt: ref.attempt,
      recovering: options.recovering,
      born: ref.born,
      journal: this.#journal,
      steps: tools.steps,
      undoLog: this.#undoLog,
      transactionOfRequest: () => this.#transaction,
      signal: () => this.#signal(),
    }
    this.#execution = make(parts, this)
  }

  get execution(): Execution {
    return this.#execution
  }

  /** Whether the database knows how it ended. */
  get isSettled(): boolean {
    return this.#settledAlready
  }

  /**
   * Whether the execution may be run again if this attempt ends without a final answer: as the app says,
   * else if anything is recorded, or the handler has asked for a step: what it does is in steps then.
   */
  get isResumable(): boolean {
    return this.#options.resumable ?? (this.#journal.isUsed || !this.#journal.isEmpty)
  }

  /** Whether a step has failed for good, so that no other attempt can fare better. */
  get hasFailed(): boolean {
    return this.#journal.hasFailure
  }

  /** Whether an earlier attempt has given up: its answer is the one to give. */
  get isGivingUp(): boolean {
    return this.#journal.isGivingUp
  }

  /** The recorded steps that this attempt has not asked for. */
  get skippedSteps(): string[] {
    return this.#journal.skipped
  }

  /**
   * Undoes what has been recorded, before a final error is. Steps that are still under way and could
   * then not be undone are waited for, and no new ones begin.
   * @returns the outcome to record: this one, or the one of an earlier attempt that gave up
   * @throws what a compensation throws; PawlError
   */
  async giveUp(outcome: Outcome): Promise<Outcome> {
    this.#journal.close()
    await this.#undoLog.quiet()
    const { undoable } = this.#undoLog
    if (undoable.length === 0 && !this.isGivingUp) return outcome
    const keyOf = this.#execution.keyOf.bind(this.#execution)
    return compensate(this.#execution, this.#journal, undoable, outcome, keyOf)
  }

  /**
   * Records the outcome and resolves to what was recorded, which may be another attempt's. If the
   * store cannot be reached, this goes on trying for as long as Pawl runs.
   *
   * @param retentionMs how long the outcome is kept, in ms
   * @param failure whether this is a failure, which counts only from the current attempt
   */
  async complete(outcome: Outcome, retentionMs: number, failure: boolean): Promise<Settled> {
    try {
      const settled = await this.#record(outcome, retentionMs, failure)
      this.#settle(settled)
      return settled
    } catch (error) {
      await this.interrupt().catch(() => {})
      throw error
    }
  }

  /**
   * Runs the handler in a transaction that its outcome is a part of.
   *
   * @param host default: the database of Pawl
   * @param retentionMs how long the outcome is kept, in ms
   * @param handle runs it; resolves to the outcome, or to null to roll all of it back and give the
   * execution back
   * @throws what opening or committing the transaction throws; it is rolled back, and the execution
   * given back (in the background, if the transaction did not begin)
   */
  async completeInTransaction(
    host: TransactionHost<unknown> | undefined,
    retentionMs: number,
    handle: () => Promise<Outcome | null>,
  ): Promise<Settled> {
    const { steps, store } = this.#tools
    const where = host ?? steps.host
    let own: Outcome | null = null
    let awaited = false
    try {
      await steps.transaction(
        where,
        async (tx, run) => {
          const superseded = new Promise<null>((resolve) => {
            this.#endTransaction = () => resolve(null)
          })
          this.#journal.check()
          this.#transaction = { tx, blocks: steps.blocks(where) }
          own = await Promise.race([handle(), superseded])
          if (!own || this.#journal.hasStopped) throw new RolledBack()
          const recorded = await this.#completeIn(run, own, retentionMs)
          if (recorded === null) throw new RolledBack()
          awaited = recorded
        },
        undefined,
      )
    } catch (error) {
      if (!this.#transaction) {
        this.release('released').catch(() => {})
        throw error
      }
      // The journal knows: another attempt may have been first, and a commit whose reply was lost is a
      // commit. One that is still under way holds the row, and giving back waits for it.
      const settled = await this.#lookAtOther()
      if (settled.kind === 'done') return this.#done(settled)
      const released = await this.release('released')
      if (error instanceof RolledBack || released.kind === 'done') return released
      throw error
    }
    if (awaited) store.notify([this.#ref.id])
    return this.#done({ kind: 'done', outcome: own as unknown as Outcome, own: true })
  }

  /**
   * Gives the execution back without an outcome: free to resume, or open what it did. If this attempt is
   * no longer the current one, that changes nothing, and this tells what another has made of it.
   */
  async release(status: Unfinished, ending?: Interruption): Promise<Settled> {
    if (this.isSettled) return this.settled
    this.#releasing ??= this.#release(status, ending)
    return this.#releasing
  }

  async #release(status: Unfinished, how: Interruption | undefined): Promise<Settled> {
    this.#supersede()
    const { store, sealer, stopped } = this.#tools
    const error = how?.error && encodeError(how.error)
    const ending: Ending | undefined = how && {
      ...how,
      error: error ? sealer.seal(error, this.#ref.id, LAST_ERROR) : null,
    }
    let settled: Settled = { kind: status }
    try {
      const wasCurrent = await persist(() => store.release(this.#ref, status, ending), stopped)
      if (!wasCurrent) settled = await this.#lookAtOther()
    } finally {
      this.#settle(settled)
    }
    return settled
  }

  /** The attempt ended without an outcome (crash, timeout, shutdown). */
  interrupt(ending?: Interruption): Promise<Settled> {
    return this.release(this.isResumable ? 'released' : 'unknown', ending)
  }

  /** It sleeps, by a statement of its own: whatever its code still does leads nowhere. */
  suspended(): void {
    this.#supersede()
    this.#settle({ kind: 'suspended' })
  }

  /** Another attempt is the current one: this one is not to do anything any more. */
  supersede(): void {
    this.#supersede()
    this.#settle({ kind: 'superseded' })
  }

  /** Lets the code begin nothing new: it is to end, and what it did is undone. */
  halt(error: Error): void {
    this.#journal.halt(error)
    this.#abort?.abort(error)
    this.#onHalt?.()
  }

  /** Called when the code may begin nothing new. */
  set onHalt(listener: () => void) {
    this.#onHalt = listener
    if (this.#journal.halted) listener()
  }

  async #record(outcome: Outcome, retentionMs: number, failure: boolean): Promise<Settled> {
    // What a handler answers that was told to stop says nothing of the execution.
    if (this.#journal.hasStopped) return this.#lookAtOther()
    const { store, sealer, stopped } = this.#tools
    const completion = {
      ...this.#ref,
      outcome: sealOutcome(sealer, this.#ref.id, outcome),
      retentionMs,
      onlyIfCurrent: failure,
    }
    const completed = await persist(() => store.complete(completion), stopped)
    if (completed.kind === 'stored') return { kind: 'done', outcome, own: true }
    const { found } = completed
    if (found?.outcome) return { kind: 'done', outcome: this.#open(found.outcome), own: false }
    if (found) return { kind: 'superseded' }
    throw new PawlError(
      'execution-gone',
      `Execution ${this.#ref.id} was deleted while it was running; its outcome cannot be recorded.`,
      'Do not delete rows of running executions.',
    )
  }

  #completeIn(run: RunStatement, outcome: Outcome, retentionMs: number): Promise<boolean | null> {
    const { steps, sealer } = this.#tools
    const sealed = sealOutcome(sealer, this.#ref.id, outcome)
    return steps.completeIn(run, this.#ref, sealed, retentionMs)
  }

  /** What became of the execution otherwise. */
  async #lookAtOther(): Promise<Settled> {
    const { store, stopped } = this.#tools
    const found = await persist(() => store.look(this.#ref.id), stopped)
    const outcome = found?.born === this.#ref.born ? found.outcome : null
    if (!outcome) return { kind: 'superseded' }
    return { kind: 'done', outcome: this.#open(outcome), own: false }
  }

  #open(outcome: Outcome): Outcome {
    return openOutcome(this.#tools.sealer, this.#ref.id, outcome)
  }

  #done(settled: Settled): Settled {
    this.#settle(settled)
    return settled
  }

  #supersede(): void {
    this.#superseded ??= new PawlError(
      'superseded',
      'This attempt is no longer the current one.',
      'Let the handler end: another attempt goes on, or the outcome is recorded.',
    )
    this.#abort?.abort(this.#superseded)
    this.#endTransaction()
  }

  // Few handlers ask for it, and a controller costs more than all the rest of an attempt.
  #signal(): AbortSignal {
    this.#abort ??= new AbortController()
    const reason = this.#superseded ?? this.#journal.halted
    if (reason) this.#abort.abort(reason)
    return this.#abort.signal
  }
}

/** Thrown to roll back a transaction of a request. */
class RolledBack extends Error {}
