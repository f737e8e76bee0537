import { DivergenceError, PawlError, StepInterruptedError } from '../errors.ts'
import type { Entry, Recorded, StepKind, StepName, StepStore } from '../store/step-store.ts'
import type { AttemptRef } from '../store/store.ts'
import { EntryCodec, type Result } from './entry-codec.ts'
import { Gate } from './gate.ts'
import { checkStepCount, type JournalLimits } from './limits.ts'
import { after, persist } from './persist.ts'
import { type Divergence, idOf, RecordedEntries, WHOLE } from './recorded-entries.ts'
import type { Sealer } from './seal.ts'
import { Survived } from './survived.ts'
import { decodeValue } from './value.ts'

/** How long a transaction whose end is not known waits for a store that is away. */
const LOOK_MS = 5000

/** The entry that says that compensations run. */
export const GIVING_UP: StepName = { name: WHOLE, occurrence: 1 }

/** A use of a step's name, and what is recorded under it. */
export interface Use extends StepName {
  kind: StepKind
  entry: Entry | undefined
}

/** An entry as a statement of another kind writes it. */
export interface Sent extends AttemptRef, StepName {
  position: number
  output: Buffer | null
}

/**
 * The journal of one execution as one attempt sees it: what earlier attempts recorded, read at once when
 * the attempt began, and what it records itself. The first recorded entry wins; an attempt that comes
 * second adopts it.
 */
export class Journal {
  readonly #store: StepStore
  readonly #codec: EntryCodec
  readonly #ref: AttemptRef
  readonly #stopped: () => boolean
  readonly #superseded: () => Error | null
  readonly #onSuperseded: () => void
  readonly #onCancelling: () => void
  readonly #maxEntries: number
  readonly #entries: RecordedEntries
  readonly #gate: Gate
  readonly #survived = new Survived()
  readonly #uses = new Map<string, number>()
  #recorded: number
  /** Entries that were there when the attempt began, and those that it has begun. */
  #begun: number
  #hasFailure = false
  #hasStopped = false
  #closed = false
  #halted: Error | undefined
  #now: string
  #clock: { at: bigint; seen: number }

  /**
   * @param recorded what earlier attempts recorded, in the order of replay
   * @param life what the attempt knows of its own standing
   * @throws PawlError `decryption-failed` if one of the entries does not open: no handler may run and
   * take that for the failure of a step
   */
  constructor(
    store: StepStore,
    sealer: Sealer,
    ref: AttemptRef,
    recorded: readonly Entry[],
    limits: JournalLimits,
    life: {
      stopped(): boolean
      superseded(): Error | null
      onSuperseded(): void
      onCancelling(): void
    },
  ) {
    this.#store = store
    this.#codec = new EntryCodec(sealer, ref.id, limits.step)
    this.#ref = ref
    this.#stopped = () => life.stopped()
    this.#superseded = () => life.superseded()
    this.#onSuperseded = () => life.onSuperseded()
    this.#onCancelling = () => life.onCancelling()
    this.#maxEntries = limits.steps
    this.#entries = new RecordedEntries(recorded.map((entry) => this.#codec.open(entry)))
    this.#gate = new Gate(this.#entries.turns)
    this.#recorded = recorded.length
    this.#begun = recorded.length
    this.#now = ref.born
    this.#clock = { at: BigInt(ref.born), seen: performance.now() }
  }

  /** Whether anything is recorded, by this attempt or an earlier one. */
  get isEmpty(): boolean {
    return this.#recorded === 0
  }

  /** Whether the handler has asked for a step. */
  get isUsed(): boolean {
    return this.#uses.size > 0
  }

  /** Whether the handler has seen a step fail for good: an answer it gives now is final. */
  get hasFailure(): boolean {
    return this.#hasFailure
  }

  /** Whether the handler has been told that this attempt must not go on: its answer is worth nothing. */
  get hasStopped(): boolean {
    return this.#hasStopped
  }

  /** Entries of earlier attempts that this one has not asked for. */
  get skipped(): string[] {
    return this.#entries.skipped
  }

  /** When the last entry that the handler has seen was recorded, in microseconds since 1970. */
  get now(): string {
    return this.#now
  }

  /**
   * Takes the next occurrence of a name. Throws if this attempt must not go on.
   * @throws PawlError `superseded`, `limit-exceeded`
   * @throws DivergenceError if an entry of another kind is recorded there
   */
  use(name: string, kind: StepKind): Use {
    const occurrence = (this.#uses.get(name) ?? 0) + 1
    this.#uses.set(name, occurrence)
    return this.useAt({ name, occurrence }, kind)
  }

  /** The same for an occurrence that is not the next. */
  useAt({ name, occurrence }: StepName, kind: StepKind): Use {
    this.check()
    const entry = this.#entries.use({ name, occurrence })
    const isHandlers = kind !== 'compensation' && name !== WHOLE
    if (!entry?.completed && isHandlers && !this.isGivingUp) this.checkHalted()
    if (!entry && this.#closed && isHandlers) {
      throw new PawlError(
        'superseded',
        `"${name}" was started after the handler had given its final answer.`,
        'Wait for all branches before you answer: Promise.allSettled, in place of Promise.all.',
      )
    }
    if (!entry && this.isGivingUp && isHandlers) {
      throw new DivergenceError(
        `"${name}" is new, and the execution is giving up: its compensations have begun.`,
        'Nothing is to be done; the recorded answer is given when all of them have run.',
      )
    }
    if (entry && entry.kind !== kind) {
      throw new DivergenceError(
        `"${name}" is recorded as a ${entry.kind} and is now a ${kind}.`,
        'Give the new step another name, or bring the old one back until executions in flight are done.',
      )
    }
    if (!entry && isHandlers) checkStepCount(name, this.#begun++, this.#maxEntries)
    return { name, occurrence, kind, entry }
  }

  /** Whether an earlier attempt has given up, and compensations may have run. */
  get isGivingUp(): boolean {
    return this.#entries.get(GIVING_UP) !== undefined
  }

  /** Notes that the code gets to see a failure of a step that is not recorded. */
  failed(use: Use, error: unknown): void {
    this.#survived.note(use, error, this.#gate.taken)
  }

  /** Records the failures that the code has survived: it is about to sleep. */
  async keepFailures(): Promise<void> {
    if (this.#superseded()) return
    await persist(() => this.#survived.keep(this.#store, this.#codec, this.#ref), this.#stopped)
  }

  /** Records that the code of this attempt does not fit, and what it has not asked for. */
  async diverged(divergence: Divergence): Promise<void> {
    const name = { name: WHOLE, occurrence: this.#ref.attempt + 1 }
    await this.record(this.useAt(name, 'divergence'), { output: divergence }, 0)
  }

  /** Lets the handler begin no new steps: it has given its final answer. */
  close(): void {
    this.#closed = true
  }

  /** Lets the handler begin nothing new: the execution was asked to end, or its time is up. */
  halt(error: Error): void {
    this.#halted ??= error
  }

  /** Why the handler may begin nothing new. */
  get halted(): Error | undefined {
    return this.#halted
  }

  /** @throws why the handler may begin nothing new */
  checkHalted(): void {
    if (this.#halted) throw this.#halted
  }

  /** Whether earlier attempts have recorded more than the handler has asked for by now. */
  get isReplaying(): boolean {
    return this.skipped.length > 0
  }

  /** Whether something is recorded under this name. */
  has(name: string): boolean {
    return this.#entries.get({ name, occurrence: 1 }) !== undefined
  }

  /** How many entries there are. */
  get size(): number {
    return this.#recorded
  }

  /** Resolves to the recorded output, or rejects with the recorded error, when it is its turn. */
  async replay(use: StepName, entry: Entry): Promise<unknown> {
    const position = this.#entries.turnOf(use)
    if (position !== undefined) await this.#gate.pass(position)
    return this.#open(entry)
  }

  /**
   * Records what became of a step and resolves to what is recorded: this, or what was there first.
   * @returns the entry of another attempt if that was first; null if this one is recorded
   * @throws PawlError `superseded` if this attempt must not record it, `value-unkeepable`,
   * `limit-exceeded`, `store-unavailable` once Pawl has stopped
   */
  async record(use: Use, result: Result, tookMs: number): Promise<Entry | null> {
    const { output, error } = this.#codec.encode(use, result)
    const completed = result !== 'intent'
    const write = (position: number) =>
      this.#store.record({
        ...this.#ref,
        name: use.name,
        occurrence: use.occurrence,
        kind: use.kind,
        position,
        output,
        error,
        tookMs: Math.round(tookMs),
        completed,
        onlyIfCurrent: !completed || error !== null,
      })
    const first = await this.#write(write, completed, () => this.#first(use, result))
    if (!first && typeof result === 'object' && 'error' in result) this.#noteFailure(result.error)
    return first ?? null
  }

  /**
   * Records the output of a step by a statement that does something else besides.
   * @returns the entry of another attempt if that was first; null if this one is recorded; undefined if
   * the statement did not want to
   * @throws as record
   */
  recordBy(
    use: Use,
    output: unknown,
    send: (record: Sent) => Promise<Recorded>,
  ): Promise<Entry | null | undefined> {
    const sealed = this.#codec.encode(use, { output }).output
    const { name, occurrence } = use
    return this.#write(
      (position) => send({ ...this.#ref, name, occurrence, position, output: sealed }),
      true,
      async (current) => {
        const entry = await this.lookAgain(use, false)
        if (!entry && !current) throw this.over()
        return entry
      },
    )
  }

  async #write(
    send: (position: number) => Promise<Recorded>,
    completed: boolean,
    whatIsThere: (current: boolean) => Promise<Entry | null | undefined>,
  ): Promise<Entry | null | undefined> {
    const position = this.#gate.take()
    try {
      const { won, current, cancelling, at } = await persist(() => send(position), this.#stopped)
      if (at) this.synchronize(at)
      if (!current) this.#onSuperseded()
      if (cancelling) this.#onCancelling()
      const first = won ? null : await whatIsThere(current)
      this.#recorded++
      await this.#gate.pass(position)
      // What has only begun is nothing that a later attempt sees.
      if (won && completed) this.#now = at
      return first
    } catch (error) {
      this.#gate.withdraw(position)
      throw error
    }
  }

  /**
   * Records a step as part of a transaction of the app's.
   * @param commit runs the transaction; it is given a function that makes the entry a part of it, whose
   * result says whether it may commit
   */
  async recordIn<T>(
    use: Use,
    commit: (
      entry: (
        run: Parameters<StepStore['recordIn']>[0],
        output: unknown,
        tookMs: number,
      ) => Promise<boolean>,
    ) => Promise<T>,
  ): Promise<T> {
    let position: number | undefined
    let recorded: Recorded | undefined
    try {
      const result = await commit(async (run, output, tookMs) => {
        position ??= this.#gate.take()
        recorded = await this.#store.recordIn(run, {
          ...this.#ref,
          ...use,
          ...this.#codec.encode(use, { output }),
          position,
          tookMs: Math.round(tookMs),
          completed: true,
          onlyIfCurrent: false,
        })
        return recorded.won
      })
      if (recorded?.current === false) this.#onSuperseded()
      if (recorded?.cancelling) this.#onCancelling()
      this.#recorded++
      if (position !== undefined) await this.#gate.pass(position)
      this.#now = recorded?.at ?? this.#now
      return result
    } catch (error) {
      if (position !== undefined) this.#gate.withdraw(position)
      throw error
    }
  }

  /**
   * Looks for an entry that somebody else may have recorded meanwhile.
   * @param inDoubt whether a transaction of this attempt that recorded it may still be committing
   * @returns undefined if there is none, or only an intent
   */
  async lookAgain(use: StepName, inDoubt: boolean): Promise<Entry | undefined> {
    const giveUp = after(LOOK_MS)
    const done = () => this.#stopped() || giveUp()
    const entries = await persist(async () => {
      if (inDoubt) await this.#store.awaitTransaction(this.#ref, use)
      return this.#store.journal(this.#ref)
    }, done)
    const entry = entries.find((entry) => idOf(entry) === idOf(use))
    return entry?.completed ? entry : undefined
  }

  /**
   * Records that something has begun that takes as long as it takes: what is known of it, and since when.
   * @returns what is recorded, of this attempt or another: an entry that has ended, or what had begun
   */
  async begin(
    use: Use,
    known: unknown,
  ): Promise<{ ended: Entry } | { known: unknown; at: string }> {
    if (use.entry) return { known: decodeValue(use.entry.output), at: use.entry.at }
    let at = ''
    const { output } = this.#codec.encode(use, { output: known })
    const { name, occurrence, kind } = use
    const record = { ...this.#ref, name, occurrence, kind, output, error: null, tookMs: 0 }
    const other = await this.#write(
      async (position) => {
        const step = { ...record, position, completed: false, onlyIfCurrent: true }
        const recorded = await this.#store.record(step)
        at = recorded.at
        return recorded
      },
      false,
      async () => {
        const entry = await this.#find(use)
        if (!entry) throw this.over()
        return entry
      },
    )
    if (!other) return { known, at }
    if (other.completed) return { ended: other }
    return { known: decodeValue(this.#codec.open(other).output), at: other.at }
  }

  /** The database's time by now, in microseconds since 1970, as far as this process can tell. */
  get time(): bigint {
    return this.#clock.at + BigInt(Math.round((performance.now() - this.#clock.seen) * 1000))
  }

  /** @param at the database's time now, in microseconds since 1970 */
  synchronize(at: string): void {
    this.#clock = { at: BigInt(at), seen: performance.now() }
  }

  /** The value of an entry that was adopted, or its error. */
  adopt(entry: Entry): unknown {
    // Somebody has taken over: this is the last thing that this attempt gets to see.
    if (entry.attempt > this.#ref.attempt) this.#onSuperseded()
    return this.#open(this.#codec.open(entry))
  }

  /** @throws PawlError `superseded` if this attempt must not go on */
  check(): void {
    if (this.#superseded()) throw this.over()
  }

  /** Notes that the execution takes no more entries from this attempt. */
  over(): Error {
    this.#hasStopped = true
    this.#onSuperseded()
    return this.#superseded() ?? new Error('The execution is over.')
  }

  /** What is there in place of what was to be recorded; null if that is what is there. */
  async #first(use: Use, result: Result): Promise<Entry | null> {
    const entry = await this.#find(use)
    if (entry?.completed) return entry
    // A bare intent gives no value: this attempt may not complete it, or the execution is over.
    if (!entry || result !== 'intent') throw this.over()
    // Sent twice since the first reply was lost: what is there is the intent that we recorded.
    return entry.attempt === this.#ref.attempt ? null : entry
  }

  async #find(use: StepName): Promise<Entry | undefined> {
    const entries = await persist(() => this.#store.journal(this.#ref), this.#stopped)
    return entries.find((entry) => idOf(entry) === idOf(use))
  }

  #open(entry: Entry): unknown {
    this.#now = entry.at
    if (entry.error === null) return decodeValue(entry.output)
    const error = decodeValue(entry.error)
    this.#noteFailure(error)
    throw error
  }

  /** An interrupted step is open: a handler that learns to deal with it may still succeed. */
  #noteFailure(error: unknown): void {
    if (!(error instanceof StepInterruptedError)) this.#hasFailure = true
  }
}
