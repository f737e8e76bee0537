/** Runs one attempt at an execution, from its claim until its outcome or release is recorded. */

import { CancelledError, PawlError } from '../errors/index.ts'
import type { RunStatement, TransactionHost } from '../store/database/transaction-host.ts'
import type {
  AttemptRef,
  ExecutionStore,
  Outcome,
  ReleaseOptions,
  ReleaseStatus,
} from '../store/execution-store.ts'
import type { JournalEntry, StepStore } from '../store/step-store.ts'
import type { Execution } from './execution.ts'
import { Journal } from './journal/journal.ts'
import type { JournalLimits } from './limits.ts'
import { decryptOutcome, encryptOutcome } from './outcome-encryption.ts'
import { retryWhileUnavailable } from './retry/retry-while-unavailable.ts'
import { type ExecutionDependencies, RunningExecution } from './running-execution.ts'
import { CompensationLog, runCompensations } from './steps/compensation.ts'
import type { Encryptor } from './values/encryptor.ts'
import { encodeError } from './values/value-codec.ts'

/** How an attempt ended, as recorded in the database. */
export type AttemptResult =
  /** The execution has an outcome; `own`: it is this attempt's, not one that was recorded before. */
  | { kind: 'done'; outcome: Outcome; own: boolean }
  /** The execution was released without an outcome. */
  | { kind: 'released' | 'unknown' | 'parked' }
  /** The execution sleeps until a signal or its wakeup time. */
  | { kind: 'suspended' }
  /** Another attempt is the current one, so this one's failure was not recorded. */
  | { kind: 'superseded' }

/** Why, and how, an attempt ends without an outcome. */
export interface Interruption extends Omit<ReleaseOptions, 'error'> {
  /** The reason, shown to people. */
  error?: Error
}

/** The purpose with which the error of an interruption is encrypted. */
export const LAST_ERROR_PURPOSE = 'last error'

export interface AttemptDependencies {
  store: ExecutionStore
  steps: StepStore
  encryptor: Encryptor
  limits: JournalLimits
  /** Whether Pawl has stopped: nothing may be sent to the database any more. */
  stopped: () => boolean
}

export interface AttemptOptions {
  scope: string
  key: string
  fingerprint: Buffer
  /**
   * Whether the execution may run again after an attempt that ended without an outcome; undefined: only if
   * something is recorded in its journal.
   */
  resumable: boolean | undefined
  /** The entries that earlier attempts recorded, in the order of replay. */
  recorded: readonly JournalEntry[]
  /** Whether a worker runs the attempt, not a client's request. */
  recovering: boolean
  /** Creates the object that the handler gets. Default: a RunningExecution. */
  createExecution?: (
    executionDependencies: ExecutionDependencies,
    attempt: Attempt,
  ) => RunningExecution
}

/**
 * One attempt at an execution, from its claim until its outcome or release is recorded. The attempt's
 * answer is final only when `complete` or `release` has resolved.
 */
export class Attempt {
  readonly fingerprint: Buffer
  /** Resolves when the database has recorded how the attempt ended; never rejects. */
  readonly settled: Promise<AttemptResult>
  readonly #execution: RunningExecution
  /** Whether the code runs: what fails before, or because the database is away, does not count as an attempt. */
  hasBegun = false
  readonly #journal: Journal
  readonly #compensationLog = new CompensationLog()
  /** The request's transaction, on routes that have one; `blocks`: no step can be recorded while it is open. */
  #transaction: { tx: unknown; blocks: boolean } | undefined
  #endTransaction: () => void = () => {}
  #releasing: Promise<AttemptResult> | undefined
  readonly #ref: AttemptRef
  readonly #dependencies: AttemptDependencies
  readonly #options: AttemptOptions
  #abortController: AbortController | null = null
  #onHalted: (() => void) | undefined
  #superseded: Error | null = null
  #settle!: (settled: AttemptResult) => void
  #settledAlready = false

  constructor(dependencies: AttemptDependencies, ref: AttemptRef, options: AttemptOptions) {
    this.#dependencies = dependencies
    this.#ref = ref
    this.#options = options
    this.fingerprint = options.fingerprint
    this.settled = new Promise((resolve) => {
      this.#settle = (settled) => {
        this.#settledAlready = true
        resolve(settled)
      }
    })
    this.#journal = new Journal(
      dependencies.steps,
      dependencies.encryptor,
      ref,
      options.recorded,
      dependencies.limits,
      {
        stopped: dependencies.stopped,
        superseded: () => this.#superseded,
        onSuperseded: () => this.#stopCode(),
        onCancelling: () => this.halt(new CancelledError()),
      },
    )
    const {
      createExecution = (executionDependencies) => new RunningExecution(executionDependencies),
    } = options
    const executionDependencies = {
      id: ref.id,
      scope: options.scope,
      key: options.key,
      attempt: ref.attempt,
      recovering: options.recovering,
      incarnation: ref.incarnation,
      journal: this.#journal,
      steps: dependencies.steps,
      compensationLog: this.#compensationLog,
      requestTransaction: () => this.#transaction,
      signal: () => this.#abortSignal(),
    }
    this.#execution = createExecution(executionDependencies, this)
  }

  get execution(): Execution {
    return this.#execution
  }

  /** Whether the database has recorded how the attempt ended. */
  get isSettled(): boolean {
    return this.#settledAlready
  }

  /**
   * Whether the execution may run again if this attempt ends without a final answer: as the app's option
   * says; without the option, if anything is recorded or the handler has called a step. Its effects are in
   * steps then.
   */
  get isResumable(): boolean {
    return this.#options.resumable ?? (this.#journal.hasCalls || !this.#journal.isEmpty)
  }

  /** Whether a step has failed for good, so that another attempt would fail too. */
  get hasTerminalFailure(): boolean {
    return this.#journal.hasTerminalFailure
  }

  /** Whether an earlier attempt has begun to run compensations; its recorded answer is then the outcome. */
  get isGivingUp(): boolean {
    return this.#journal.isGivingUp
  }

  /** The recorded steps that the code of this attempt has not called. */
  get skippedSteps(): string[] {
    return this.#journal.skippedSteps
  }

  /**
   * Runs the compensations of the recorded steps, before the final error is recorded. Waits for running
   * steps that have a compensation, and lets no new step start.
   * @returns the outcome to record: the given one, or that of an earlier attempt that gave up
   * @throws what a compensation throws; PawlError
   */
  async giveUp(outcome: Outcome): Promise<Outcome> {
    this.#journal.closeToNewSteps()
    await this.#compensationLog.whenIdle()
    const { compensableSteps } = this.#compensationLog
    if (compensableSteps.length === 0 && !this.isGivingUp) return outcome
    const idempotencyKeyOf = this.#execution.idempotencyKeyOf.bind(this.#execution)
    return runCompensations(
      this.#execution,
      this.#journal,
      compensableSteps,
      outcome,
      idempotencyKeyOf,
    )
  }

  /**
   * Records the outcome and resolves to the recorded one, which may be another attempt's. While the
   * database is unavailable, keeps trying until Pawl stops.
   *
   * @param retentionMs how long the outcome is kept, in ms
   * @param failure whether the outcome is a failure, which only the current attempt may record
   */
  async complete(outcome: Outcome, retentionMs: number, failure: boolean): Promise<AttemptResult> {
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
   * Runs the handler in a database transaction and records its outcome in the same transaction.
   *
   * @param host opens the transaction; default: Pawl's database
   * @param retentionMs how long the outcome is kept, in ms
   * @param handle runs the handler; resolves to the outcome, or to null to roll the transaction back and
   * release the execution
   * @throws what opening or committing the transaction throws; the transaction is rolled back and the
   * execution released (in the background, if the transaction did not begin)
   */
  async completeInTransaction(
    host: TransactionHost<unknown> | undefined,
    retentionMs: number,
    handle: () => Promise<Outcome | null>,
  ): Promise<AttemptResult> {
    const { steps, store } = this.#dependencies
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
          this.#journal.throwIfSuperseded()
          this.#transaction = { tx, blocks: steps.blocksRecording(where) }
          own = await Promise.race([handle(), superseded])
          if (!own || this.#journal.hasStopped) throw new RollbackRequest()
          const recorded = await this.#recordInTransaction(run, own, retentionMs)
          if (recorded === null) throw new RollbackRequest()
          awaited = recorded
        },
        undefined,
      )
    } catch (error) {
      if (!this.#transaction) {
        this.release('released').catch(() => {})
        throw error
      }
      // The database tells what happened: another attempt may have recorded an outcome first, or the
      // commit may have succeeded and its reply was lost. A commit that still runs holds the row's lock,
      // and `release` waits for it.
      const settled = await this.#readRecordedResult()
      if (settled.kind === 'done') return this.#settleWith(settled)
      const released = await this.release('released')
      if (error instanceof RollbackRequest || released.kind === 'done') return released
      throw error
    }
    if (awaited) store.notify([this.#ref.id])
    return this.#settleWith({ kind: 'done', outcome: own as unknown as Outcome, own: true })
  }

  /**
   * Ends the attempt without an outcome: the execution may be resumed (`released`), its effects are unknown
   * (`unknown`), or workers give up (`parked`). If this attempt is no longer the current one, this changes
   * nothing and resolves to what another attempt recorded.
   */
  async release(status: ReleaseStatus, ending?: Interruption): Promise<AttemptResult> {
    if (this.isSettled) return this.settled
    this.#releasing ??= this.#release(status, ending)
    return this.#releasing
  }

  async #release(status: ReleaseStatus, how: Interruption | undefined): Promise<AttemptResult> {
    this.#stopCode()
    const { store, encryptor, stopped } = this.#dependencies
    const error = how?.error && encodeError(how.error)
    const ending: ReleaseOptions = {
      countsAsAttempt: this.hasBegun && !this.#journal.hasStoreFailure,
      ...how,
      error: error ? encryptor.encrypt(error, this.#ref.id, LAST_ERROR_PURPOSE) : null,
    }
    let settled: AttemptResult = { kind: status }
    try {
      const release = () => store.release(this.#ref, status, ending)
      const wasCurrent = await retryWhileUnavailable(release, stopped)
      if (!wasCurrent) settled = await this.#readRecordedResult()
    } finally {
      this.#settle(settled)
    }
    return settled
  }

  /** Releases the execution after a crash, timeout or shutdown: `released` if it is resumable, else `unknown`. */
  interrupt(ending?: Interruption): Promise<AttemptResult> {
    return this.release(this.isResumable ? 'released' : 'unknown', ending)
  }

  /** Ends the attempt after the execution was suspended in the database; what its code still does is ignored. */
  markSuspended(): void {
    this.#stopCode()
    this.#settle({ kind: 'suspended' })
  }

  /** Ends the attempt because another one is the current one. */
  markSuperseded(): void {
    this.#stopCode()
    this.#settle({ kind: 'superseded' })
  }

  /** Lets the code start no new steps, so that it ends (cancellation or timeout); what it did is compensated. */
  halt(error: Error): void {
    this.#journal.halt(error)
    this.#abortController?.abort(error)
    this.#onHalted?.()
  }

  /** Is called by `halt`, or at once if the attempt is halted already. */
  set onHalted(listener: () => void) {
    this.#onHalted = listener
    if (this.#journal.haltReason) listener()
  }

  async #record(outcome: Outcome, retentionMs: number, failure: boolean): Promise<AttemptResult> {
    // This attempt was told to stop, so the answer of its handler does not count.
    if (this.#journal.hasStopped) return this.#readRecordedResult()
    const { store, encryptor, stopped } = this.#dependencies
    const completion = {
      ...this.#ref,
      outcome: encryptOutcome(encryptor, this.#ref.id, outcome),
      retentionMs,
      onlyIfCurrent: failure,
    }
    const completed = await retryWhileUnavailable(() => store.complete(completion), stopped)
    if (completed.kind === 'stored') return { kind: 'done', outcome, own: true }
    const { found } = completed
    if (found?.outcome) return { kind: 'done', outcome: this.#decrypt(found.outcome), own: false }
    if (found) return { kind: 'superseded' }
    throw new PawlError(
      'execution-gone',
      `Execution ${this.#ref.id} was deleted while it was running; its outcome cannot be recorded.`,
      'Do not delete rows of running executions.',
    )
  }

  #recordInTransaction(
    run: RunStatement,
    outcome: Outcome,
    retentionMs: number,
  ): Promise<boolean | null> {
    const { steps, encryptor } = this.#dependencies
    const encrypted = encryptOutcome(encryptor, this.#ref.id, outcome)
    return steps.completeInTransaction(run, this.#ref, encrypted, retentionMs)
  }

  /** Reads the outcome that another attempt, or a commit whose reply was lost, has recorded. */
  async #readRecordedResult(): Promise<AttemptResult> {
    const { store, stopped } = this.#dependencies
    const found = await retryWhileUnavailable(() => store.read(this.#ref.id), stopped)
    const outcome = found?.incarnation === this.#ref.incarnation ? found.outcome : null
    if (!outcome) return { kind: 'superseded' }
    return { kind: 'done', outcome: this.#decrypt(outcome), own: false }
  }

  #decrypt(outcome: Outcome): Outcome {
    return decryptOutcome(this.#dependencies.encryptor, this.#ref.id, outcome)
  }

  #settleWith(settled: AttemptResult): AttemptResult {
    this.#settle(settled)
    return settled
  }

  /** Makes the next step that the code calls throw, fires the abort signal and ends the transaction. */
  #stopCode(): void {
    this.#superseded ??= new PawlError(
      'superseded',
      'This attempt is no longer the current one.',
      'Let the handler end: another attempt runs, or the outcome is already recorded.',
    )
    this.#abortController?.abort(this.#superseded)
    this.#endTransaction()
  }

  // Created on demand: few handlers use the signal, and a controller costs more than the rest of an attempt.
  #abortSignal(): AbortSignal {
    this.#abortController ??= new AbortController()
    const reason = this.#superseded ?? this.#journal.haltReason
    if (reason) this.#abortController.abort(reason)
    return this.#abortController.signal
  }
}

/** Thrown to roll back the transaction of a request. */
class RollbackRequest extends Error {}
