/** Reads and writes the journal of one execution, on behalf of one attempt. */

import { PawlError, type PawlErrorCode, StepInterruptedError } from '../../errors/index.ts'
import type { AttemptRef } from '../../store/execution-store.ts'
import type { JournalEntry, RecordResult, StepId, StepStore } from '../../store/step-store.ts'
import type { JournalLimits } from '../limits.ts'
import { deadlineAfter, retryWhileUnavailable } from '../retry/retry-while-unavailable.ts'
import type { Encryptor } from '../values/encryptor.ts'
import { decodeValue } from '../values/value-codec.ts'
import { CaughtFailures } from './caught-failures.ts'
import { EntryCodec, type StepResult } from './entry-codec.ts'
import { type AttemptState, JournalReader, type StepCall } from './journal-reader.ts'
import { type Divergence, EXECUTION_ENTRY_NAME, entryKey } from './recorded-entries.ts'
import { ReplayOrder } from './replay-order.ts'

/** How long to retry reading an entry while the database is unavailable, in ms. */
const REREAD_TIMEOUT_MS = 5000

const STORE_FAILURES = new Set<PawlErrorCode>(['store-unavailable', 'pool-exhausted', 'stopping'])

/** What a statement that writes an entry together with something else needs to know of the entry. */
export interface EntryWrite extends AttemptRef, StepId {
  position: number
  output: Buffer | null
}

/**
 * The journal of one execution as one attempt sees it: the entries of earlier attempts, read once when the
 * attempt began, and those it records itself. If two attempts record the same step, the first entry wins
 * and the other attempt adopts it.
 */
export class Journal extends JournalReader {
  readonly #store: StepStore
  readonly #codec: EntryCodec
  readonly #ref: AttemptRef
  readonly #attemptState: AttemptState
  readonly #replayOrder: ReplayOrder
  readonly #caughtFailures = new CaughtFailures()
  /** The decisions about changes of the code, by entry name. */
  readonly #patches = new Map<string, Promise<boolean>>()
  #entryCount: number
  #hasTerminalFailure = false
  #hasLostResult = false
  #hasStoreFailure = false
  #now: string
  #clock: { at: bigint; seen: number }

  /**
   * @param recorded the entries of earlier attempts, in the order of replay
   * @throws PawlError `decryption-failed` if an entry cannot be decrypted: the handler must not run, since it
   * would take that for the failure of a step
   */
  constructor(
    store: StepStore,
    encryptor: Encryptor,
    ref: AttemptRef,
    recorded: readonly JournalEntry[],
    limits: JournalLimits,
    attemptState: AttemptState,
  ) {
    const codec = new EntryCodec(encryptor, ref.id, limits.step)
    super(
      recorded.map((entry) => codec.decrypt(entry)),
      limits.steps,
      attemptState,
    )
    this.#store = store
    this.#codec = codec
    this.#ref = ref
    this.#attemptState = attemptState
    this.#replayOrder = new ReplayOrder(this.positionCount)
    this.#entryCount = recorded.length
    this.#now = ref.incarnation
    this.#clock = { at: BigInt(ref.incarnation), seen: performance.now() }
  }

  /** Whether nothing is recorded, neither by this attempt nor by an earlier one. */
  get isEmpty(): boolean {
    return this.#entryCount === 0
  }

  /** Whether the handler has seen a recorded failure of a step: its answer is final then. */
  get hasTerminalFailure(): boolean {
    return this.#hasTerminalFailure
  }

  /** The time at which the last entry that the handler has seen was recorded, in microseconds since 1970. */
  get now(): string {
    return this.#now
  }

  /** Notes that the code sees a failure of a step that is not recorded. */
  noteFailure(call: StepCall, error: unknown): void {
    this.#caughtFailures.add(call, error, this.#replayOrder.lastReserved)
  }

  /** Notes that a step has taken effect and that its result cannot be stored. */
  noteLostResult(): void {
    this.#hasLostResult = true
  }

  /** Whether this attempt has run a step whose effect would be repeated by every further attempt. */
  get hasLostResult(): boolean {
    return this.#hasLostResult
  }

  /** Notes what the code sees of a call of Pawl that failed. */
  noteError(error: unknown): void {
    this.#hasStoreFailure ||= error instanceof PawlError && STORE_FAILURES.has(error.code)
  }

  /** Whether a call failed because the database was away: that the code then fails says nothing about the code. */
  get hasStoreFailure(): boolean {
    return this.#hasStoreFailure
  }

  /** Records the failures of steps that the code has caught; called before the execution sleeps. */
  async recordCaughtFailures(): Promise<void> {
    if (this.#attemptState.superseded()) return
    const record = () => this.#caughtFailures.record(this.#store, this.#codec, this.#ref)
    await retryWhileUnavailable(record, () => this.#attemptState.stopped())
  }

  /** Records that this attempt's code does not fit the journal, and which entries it has not called. */
  async recordDivergence(divergence: Divergence): Promise<void> {
    const name = { name: EXECUTION_ENTRY_NAME, occurrence: this.#ref.attempt + 1 }
    await this.record(this.callAt(name, 'divergence'), { output: divergence }, 0)
  }

  /** The number of recorded entries. */
  get entryCount(): number {
    return this.#entryCount
  }

  /** Resolves to the recorded output or rejects with the recorded error, in the order of replay. */
  async replay(call: StepId, entry: JournalEntry): Promise<unknown> {
    const position = this.positionOf(call)
    if (position !== undefined) await this.#replayOrder.waitForTurn(position)
    return this.#valueOf(entry)
  }

  /**
   * Records the result of a step, unless another attempt has recorded one first.
   * @returns the entry of another attempt if that was first; null if this one is recorded
   * @throws PawlError `superseded` if this attempt must not record it, `value-unkeepable`,
   * `limit-exceeded`, `store-unavailable` once Pawl has stopped
   */
  async record(call: StepCall, result: StepResult, tookMs: number): Promise<JournalEntry | null> {
    const { output, error } = this.#codec.encode(call, result)
    const completed = result !== 'intent'
    const write = (position: number) =>
      this.#store.record({
        ...this.#ref,
        name: call.name,
        occurrence: call.occurrence,
        kind: call.kind,
        position,
        output,
        error,
        tookMs: Math.round(tookMs),
        completed,
        onlyIfCurrent: !completed || error !== null,
      })
    const first = await this.#writeInOrder(write, completed, () =>
      this.#resolveConflict(call, result),
    )
    if (!first && typeof result === 'object' && 'error' in result)
      this.#noteTerminalFailure(result.error)
    return first ?? null
  }

  /**
   * Records the output of a step with the caller's statement, which changes something else in the same
   * commit.
   * @returns the entry of another attempt if that was first; null if this one is recorded; undefined if the
   * statement recorded nothing
   * @throws as record
   */
  recordWith(
    call: StepCall,
    output: unknown,
    send: (record: EntryWrite) => Promise<RecordResult>,
  ): Promise<JournalEntry | null | undefined> {
    const encoded = this.#codec.encode(call, { output }).output
    const { name, occurrence } = call
    return this.#writeInOrder(
      (position) => send({ ...this.#ref, name, occurrence, position, output: encoded }),
      true,
      async (current) => {
        const entry = await this.rereadEntry(call, false)
        if (!entry && !current) throw this.stopAttempt()
        return entry
      },
    )
  }

  /**
   * Decides, once for the execution, whether the code takes the new branch of a change, and records the decision: false
   * if steps are recorded that the code has not called yet, since an earlier attempt was past this point without the
   * change. Recorded outside the order of replay, in which code without the change never asks for it.
   * @throws as record
   */
  isPatched(name: string): Promise<boolean> {
    const decision = this.#patches.get(name) ?? this.#decidePatch({ name, occurrence: 1 })
    this.#patches.set(name, decision)
    return decision
  }

  async #decidePatch(id: StepId): Promise<boolean> {
    const decision = !this.isReplaying
    // The code only runs to its recorded steps, which are then compensated: nothing new is recorded.
    if (!decision && !this.has(id) && (this.haltReason || this.isGivingUp)) return false
    const call = this.callAt(id, 'patch')
    if (call.entry) return decodeValue(call.entry.output) as boolean
    const record = {
      ...{ ...this.#ref, ...id, ...this.#codec.encode(call, { output: decision }) },
      ...{ kind: call.kind, tookMs: 0, completed: true, onlyIfCurrent: false },
    }
    const { first } = await this.#write(
      () => this.#store.record({ ...record, position: this.#replayOrder.lastReserved }),
      () => this.#resolveConflict(call, { output: decision }),
    )
    return first ? (decodeValue(this.#codec.decrypt(first).output) as boolean) : decision
  }

  async #writeInOrder(
    send: (position: number) => Promise<RecordResult>,
    completed: boolean,
    readRecorded: (current: boolean) => Promise<JournalEntry | null | undefined>,
  ): Promise<JournalEntry | null | undefined> {
    const position = this.#replayOrder.reserve()
    try {
      const { first, recorded, at } = await this.#write(() => send(position), readRecorded)
      await this.#replayOrder.waitForTurn(position)
      // An entry that has only started does not count: a later attempt does not see its time.
      if (recorded && completed) this.#now = at
      return first
    } catch (error) {
      this.#replayOrder.cancel(position)
      throw error
    }
  }

  async #write(
    send: () => Promise<RecordResult>,
    readRecorded: (current: boolean) => Promise<JournalEntry | null | undefined>,
  ) {
    const { recorded, current, cancelling, at } = await retryWhileUnavailable(send, () =>
      this.#attemptState.stopped(),
    )
    if (at) this.synchronizeClock(at)
    if (!current) this.#attemptState.onSuperseded()
    if (cancelling) this.#attemptState.onCancelling()
    const first = recorded ? null : await readRecorded(current)
    this.#entryCount++
    return { first, recorded, at }
  }

  /**
   * Records the output of a step inside the app's transaction.
   * @param commit runs the transaction; gets a function that inserts the entry in it and resolves to
   * whether the transaction may commit
   */
  async recordInTransaction<T>(
    call: StepCall,
    commit: (
      entry: (
        run: Parameters<StepStore['recordInTransaction']>[0],
        output: unknown,
        tookMs: number,
      ) => Promise<boolean>,
    ) => Promise<T>,
  ): Promise<T> {
    let position: number | undefined
    let recorded: RecordResult | undefined
    try {
      const result = await commit(async (run, output, tookMs) => {
        position ??= this.#replayOrder.reserve()
        recorded = await this.#store.recordInTransaction(run, {
          ...this.#ref,
          ...call,
          ...this.#codec.encode(call, { output }),
          position,
          tookMs: Math.round(tookMs),
          completed: true,
          onlyIfCurrent: false,
        })
        return recorded.recorded
      })
      if (recorded?.current === false) this.#attemptState.onSuperseded()
      if (recorded?.cancelling) this.#attemptState.onCancelling()
      this.#entryCount++
      if (position !== undefined) await this.#replayOrder.waitForTurn(position)
      this.#now = recorded?.at ?? this.#now
      return result
    } catch (error) {
      if (position !== undefined) this.#replayOrder.cancel(position)
      throw error
    }
  }

  /**
   * Reads from the database the entry of a step that may have been recorded meanwhile.
   * @param mayBeCommitting whether a transaction of this attempt that inserts the entry may still be committing
   * @returns undefined if there is no entry, or only an intent
   */
  async rereadEntry(call: StepId, mayBeCommitting: boolean): Promise<JournalEntry | undefined> {
    const giveUp = deadlineAfter(REREAD_TIMEOUT_MS)
    const done = () => this.#attemptState.stopped() || giveUp()
    const entries = await retryWhileUnavailable(async () => {
      if (mayBeCommitting) await this.#store.awaitTransaction(this.#ref, call)
      return this.#store.readJournal(this.#ref)
    }, done)
    const entry = entries.find((entry) => entryKey(entry) === entryKey(call))
    return entry?.completed ? entry : undefined
  }

  /**
   * Records that a wait (a sleep or a signal) has started, with its details.
   * @returns the completed entry if the wait has ended already; else the details and start time that are
   * recorded, by this attempt or another one
   */
  async recordStart(
    call: StepCall,
    known: unknown,
  ): Promise<{ ended: JournalEntry } | { known: unknown; at: string }> {
    if (call.entry) return { known: decodeValue(call.entry.output), at: call.entry.at }
    let at = ''
    const { output } = this.#codec.encode(call, { output: known })
    const { name, occurrence, kind } = call
    const record = { ...this.#ref, name, occurrence, kind, output, error: null, tookMs: 0 }
    const other = await this.#writeInOrder(
      async (position) => {
        const step = { ...record, position, completed: false, onlyIfCurrent: true }
        const recorded = await this.#store.record(step)
        at = recorded.at
        return recorded
      },
      false,
      async () => {
        const entry = await this.#readEntry(call)
        if (!entry) throw this.stopAttempt()
        return entry
      },
    )
    if (!other) return { known, at }
    if (other.completed) return { ended: other }
    return { known: decodeValue(this.#codec.decrypt(other).output), at: other.at }
  }

  /** The database's current time in microseconds since 1970, estimated from the last time that it sent. */
  get databaseTime(): bigint {
    return this.#clock.at + BigInt(Math.round((performance.now() - this.#clock.seen) * 1000))
  }

  /** Sets the estimate of the database's time. @param at in microseconds since 1970 */
  synchronizeClock(at: string): void {
    this.#clock = { at: BigInt(at), seen: performance.now() }
  }

  /** Returns the output of another attempt's entry, or throws its error. */
  adopt(entry: JournalEntry): unknown {
    // A later attempt has taken over: this entry is the last thing that this attempt sees.
    if (entry.attempt > this.#ref.attempt) this.#attemptState.onSuperseded()
    return this.#valueOf(this.#codec.decrypt(entry))
  }

  /** Reads the entry that prevented recording this one; resolves to null if it is this one. */
  async #resolveConflict(call: StepCall, result: StepResult): Promise<JournalEntry | null> {
    const entry = await this.#readEntry(call)
    if (entry?.completed) return entry
    // A bare intent has no result: this attempt may not complete it, or the execution has ended.
    if (!entry || result !== 'intent') throw this.stopAttempt()
    // If this attempt recorded the intent, it was sent twice because the first reply was lost.
    return entry.attempt === this.#ref.attempt ? null : entry
  }

  async #readEntry(call: StepId): Promise<JournalEntry | undefined> {
    const entries = await retryWhileUnavailable(
      () => this.#store.readJournal(this.#ref),
      () => this.#attemptState.stopped(),
    )
    return entries.find((entry) => entryKey(entry) === entryKey(call))
  }

  #valueOf(entry: JournalEntry): unknown {
    this.#now = entry.at
    if (entry.error === null) return decodeValue(entry.output)
    const error = decodeValue(entry.error)
    this.#noteTerminalFailure(error)
    throw error
  }

  /** An interrupted step does not count: a handler that deals with the error may still succeed. */
  #noteTerminalFailure(error: unknown): void {
    if (!(error instanceof StepInterruptedError)) this.#hasTerminalFailure = true
  }
}
