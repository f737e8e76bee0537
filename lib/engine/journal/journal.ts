import { StepInterruptedError } from '../../errors/index.ts'
import type { Entry, Recorded, StepName, StepStore } from '../../store/step-store.ts'
import type { AttemptRef } from '../../store/execution-store.ts'
import type { JournalLimits } from '../limits.ts'
import { after, persist } from '../retry/retry-while-unavailable.ts'
import type { Sealer } from '../values/encryptor.ts'
import { decodeValue } from '../values/value-codec.ts'
import { EntryCodec, type Result } from './entry-codec.ts'
import { Gate } from './replay-order.ts'
import { type Divergence, idOf, WHOLE } from './recorded-entries.ts'
import { type Life, Replay, type Use } from './journal-reader.ts'
import { Survived } from './caught-failures.ts'

/** How long a transaction whose end is not known waits for a store that is away. */
const LOOK_MS = 5000

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
export class Journal extends Replay {
  readonly #store: StepStore
  readonly #codec: EntryCodec
  readonly #ref: AttemptRef
  readonly #life: Life
  readonly #gate: Gate
  readonly #survived = new Survived()
  #recorded: number
  #hasFailure = false
  #now: string
  #clock: { at: bigint; seen: number }

  /**
   * @param recorded what earlier attempts recorded, in the order of replay
   * @throws PawlError `decryption-failed` if one of the entries does not open: no handler may run and
   * take that for the failure of a step
   */
  constructor(
    store: StepStore,
    sealer: Sealer,
    ref: AttemptRef,
    recorded: readonly Entry[],
    limits: JournalLimits,
    life: Life,
  ) {
    const codec = new EntryCodec(sealer, ref.id, limits.step)
    super(
      recorded.map((entry) => codec.open(entry)),
      limits.steps,
      life,
    )
    this.#store = store
    this.#codec = codec
    this.#ref = ref
    this.#life = life
    this.#gate = new Gate(this.turns)
    this.#recorded = recorded.length
    this.#now = ref.born
    this.#clock = { at: BigInt(ref.born), seen: performance.now() }
  }

  /** Whether anything is recorded, by this attempt or an earlier one. */
  get isEmpty(): boolean {
    return this.#recorded === 0
  }

  /** Whether the handler has seen a step fail for good: an answer it gives now is final. */
  get hasFailure(): boolean {
    return this.#hasFailure
  }

  /** When the last entry that the handler has seen was recorded, in microseconds since 1970. */
  get now(): string {
    return this.#now
  }

  /** Notes that the code gets to see a failure of a step that is not recorded. */
  failed(use: Use, error: unknown): void {
    this.#survived.note(use, error, this.#gate.taken)
  }

  /** Records the failures that the code has survived: it is about to sleep. */
  async keepFailures(): Promise<void> {
    if (this.#life.superseded()) return
    const keep = () => this.#survived.keep(this.#store, this.#codec, this.#ref)
    await persist(keep, () => this.#life.stopped())
  }

  /** Records that the code of this attempt does not fit, and what it has not asked for. */
  async diverged(divergence: Divergence): Promise<void> {
    const name = { name: WHOLE, occurrence: this.#ref.attempt + 1 }
    await this.record(this.useAt(name, 'divergence'), { output: divergence }, 0)
  }

  /** How many entries there are. */
  get size(): number {
    return this.#recorded
  }

  /** Resolves to the recorded output, or rejects with the recorded error, when it is its turn. */
  async replay(use: StepName, entry: Entry): Promise<unknown> {
    const position = this.turnOf(use)
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
      const { won, current, cancelling, at } = await persist(
        () => send(position),
        () => this.#life.stopped(),
      )
      if (at) this.synchronize(at)
      if (!current) this.#life.onSuperseded()
      if (cancelling) this.#life.onCancelling()
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
      if (recorded?.current === false) this.#life.onSuperseded()
      if (recorded?.cancelling) this.#life.onCancelling()
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
    const done = () => this.#life.stopped() || giveUp()
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
    if (entry.attempt > this.#ref.attempt) this.#life.onSuperseded()
    return this.#open(this.#codec.open(entry))
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
    const entries = await persist(
      () => this.#store.journal(this.#ref),
      () => this.#life.stopped(),
    )
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
