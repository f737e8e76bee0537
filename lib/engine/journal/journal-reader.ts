import { DivergenceError, PawlError } from '../../errors/index.ts'
import type { Entry, StepKind, StepName } from '../../store/step-store.ts'
import { checkStepCount } from '../limits.ts'
import { RecordedEntries, WHOLE } from './recorded-entries.ts'

/** The entry that says that compensations run. */
export const GIVING_UP: StepName = { name: WHOLE, occurrence: 1 }

/** A use of a step's name, and what is recorded under it. */
export interface Use extends StepName {
  kind: StepKind
  entry: Entry | undefined
}

/** What an attempt knows of its own standing. */
export interface Life {
  /** Whether Pawl has stopped, and nothing may be tried any more. */
  stopped(): boolean
  /** Why this attempt must not go on. */
  superseded(): Error | null
  onSuperseded(): void
  /** Told that the execution was asked to end. */
  onCancelling(): void
}

/** What earlier attempts recorded, and what the handler has asked for of it. */
export class Replay {
  readonly #life: Life
  readonly #recorded: RecordedEntries
  readonly #uses = new Map<string, number>()
  readonly #maxEntries: number
  /** Entries that were there when the attempt began, and those that it has begun. */
  #begun: number
  #hasStopped = false
  #closed = false
  #halted: Error | undefined

  /**
   * @param recorded decrypted, in the order of replay
   * @param maxEntries how many entries an execution may have
   */
  constructor(recorded: readonly Entry[], maxEntries: number, life: Life) {
    this.#recorded = new RecordedEntries(recorded)
    this.#begun = recorded.length
    this.#maxEntries = maxEntries
    this.#life = life
  }

  /** Whether the handler has asked for a step. */
  get isUsed(): boolean {
    return this.#uses.size > 0
  }

  /** Whether the handler has been told that this attempt must not go on: its answer is worth nothing. */
  get hasStopped(): boolean {
    return this.#hasStopped
  }

  /** Entries of earlier attempts that this one has not asked for. */
  get skipped(): string[] {
    return this.#recorded.skipped
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
    const entry = this.#recorded.use({ name, occurrence })
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
    return this.#recorded.get(GIVING_UP) !== undefined
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
    return this.#recorded.get({ name, occurrence: 1 }) !== undefined
  }

  /** How many of the entries have a turn when they are replayed. */
  protected get turns(): number {
    return this.#recorded.turns
  }

  protected turnOf(use: StepName): number | undefined {
    return this.#recorded.turnOf(use)
  }

  /** @throws PawlError `superseded` if this attempt must not go on */
  check(): void {
    if (this.#life.superseded()) throw this.over()
  }

  /** Notes that the execution takes no more entries from this attempt. */
  over(): Error {
    this.#hasStopped = true
    this.#life.onSuperseded()
    return this.#life.superseded() ?? new Error('The execution is over.')
  }
}
