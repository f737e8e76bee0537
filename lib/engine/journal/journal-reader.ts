/** Matches the steps that the code calls with the entries that earlier attempts recorded. */

import { DivergenceError, PawlError } from '../../errors/index.ts'
import type { JournalEntry, StepId, StepKind } from '../../store/step-store.ts'
import { checkStepCount } from '../limits.ts'
import { EXECUTION_ENTRY_NAME, RecordedEntries } from './recorded-entries.ts'

/** The id of the entry that is recorded before the first compensation runs. */
export const GIVING_UP: StepId = { name: EXECUTION_ENTRY_NAME, occurrence: 1 }

/** One call of a step: its name and occurrence, and the entry that is recorded for it. */
export interface StepCall extends StepId {
  kind: StepKind
  entry: JournalEntry | undefined
}

/** Callbacks by which the journal learns that its attempt was stopped, superseded or cancelled, or reports it. */
export interface AttemptState {
  /** Whether Pawl has stopped: nothing may be sent to the database any more. */
  stopped(): boolean
  /** The error that the next step throws if this attempt must not continue; else null. */
  superseded(): Error | null
  /** Called when the journal finds that this attempt must not continue. */
  onSuperseded(): void
  /** Called when the journal finds that the execution was cancelled. */
  onCancelling(): void
}

/** The reading half of a journal: numbers the calls of each step name and finds the entry of each call. */
export class JournalReader {
  readonly #attemptState: AttemptState
  readonly #recorded: RecordedEntries
  readonly #callCounts = new Map<string, number>()
  readonly #maxEntries: number
  /** The number of entries at the start of the attempt, plus the new steps that it has called. */
  #entryCount: number
  #hasStopped = false
  #closed = false
  #haltReason: Error | undefined

  /**
   * @param recorded the decrypted entries of earlier attempts, in the order of replay
   * @param maxEntries the largest number of entries of an execution
   */
  constructor(recorded: readonly JournalEntry[], maxEntries: number, attemptState: AttemptState) {
    this.#recorded = new RecordedEntries(recorded)
    this.#entryCount = recorded.length
    this.#maxEntries = maxEntries
    this.#attemptState = attemptState
  }

  /** Whether the handler has called a step. */
  get hasCalls(): boolean {
    return this.#callCounts.size > 0
  }

  /** Whether a step has told the handler that this attempt must not continue: its answer does not count then. */
  get hasStopped(): boolean {
    return this.#hasStopped
  }

  /** The recorded steps of earlier attempts that this one has not called. */
  get skippedSteps(): string[] {
    return this.#recorded.uncalledSteps
  }

  /**
   * Begins the next call of a step name, with the next occurrence number.
   * @throws PawlError `superseded`, `limit-exceeded`
   * @throws DivergenceError if an entry of another kind is recorded for this call
   */
  call(name: string, kind: StepKind): StepCall {
    const occurrence = (this.#callCounts.get(name) ?? 0) + 1
    this.#callCounts.set(name, occurrence)
    return this.callAt({ name, occurrence }, kind)
  }

  /** The same as `call`, for a given occurrence. */
  callAt({ name, occurrence }: StepId, kind: StepKind): StepCall {
    this.throwIfSuperseded()
    const entry = this.#recorded.markCalled({ name, occurrence })
    const isOfHandler = kind !== 'compensation' && name !== EXECUTION_ENTRY_NAME
    if (!entry?.completed && isOfHandler && !this.isGivingUp) this.throwIfHalted()
    if (!entry && this.#closed && isOfHandler) {
      throw new PawlError(
        'superseded',
        `"${name}" was started after the handler had given its final answer.`,
        'Wait for all branches before answering: use Promise.allSettled instead of Promise.all.',
      )
    }
    if (!entry && this.isGivingUp && isOfHandler) {
      throw new DivergenceError(
        `"${name}" is a new step, but the execution has given up and runs its compensations.`,
        'Nothing needs to be done: the recorded answer is sent when all compensations have run.',
      )
    }
    if (entry && entry.kind !== kind) {
      throw new DivergenceError(
        `"${name}" is recorded as a ${entry.kind} and is now a ${kind}.`,
        'Give the new step another name, or bring the old one back until executions in flight are done.',
      )
    }
    if (!entry && isOfHandler) checkStepCount(name, this.#entryCount++, this.#maxEntries)
    return { name, occurrence, kind, entry }
  }

  /** Whether an earlier attempt has given up: compensations may have run. */
  get isGivingUp(): boolean {
    return this.has(GIVING_UP)
  }

  /** Makes calls of new steps throw: the handler has given its final answer. */
  closeToNewSteps(): void {
    this.#closed = true
  }

  /** Makes calls of new steps throw this error: the execution was cancelled, or its time is up. */
  halt(error: Error): void {
    this.#haltReason ??= error
  }

  /** The error given to `halt`; undefined if the attempt was not halted. */
  get haltReason(): Error | undefined {
    return this.#haltReason
  }

  /** @throws the error given to `halt`, if any */
  throwIfHalted(): void {
    if (this.#haltReason) throw this.#haltReason
  }

  /** Whether there are recorded steps that the handler has not called yet. */
  get isReplaying(): boolean {
    return this.skippedSteps.length > 0
  }

  /** Whether an earlier attempt has recorded this entry. */
  protected has(call: StepId): boolean {
    return this.#recorded.get(call) !== undefined
  }

  /** The number of entries that have a position in the order of replay. */
  protected get positionCount(): number {
    return this.#recorded.positionCount
  }

  protected positionOf(call: StepId): number | undefined {
    return this.#recorded.positionOf(call)
  }

  /** @throws PawlError `superseded` if this attempt must not continue */
  throwIfSuperseded(): void {
    if (this.#attemptState.superseded()) throw this.stopAttempt()
  }

  /** Stops this attempt, whose entries the execution no longer accepts; returns the error to throw. */
  stopAttempt(): Error {
    this.#hasStopped = true
    this.#attemptState.onSuperseded()
    return this.#attemptState.superseded() ?? new Error('The execution has ended.')
  }
}
