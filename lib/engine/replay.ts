import { DivergenceError, PawlError } from '../errors.ts'
import type { Entry, StepKind, StepName } from '../store/step-store.ts'

/** The name of the entry that says that compensations run. No step has it: a step's is not empty. */
export const GIVING_UP = ''

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
  readonly #entries = new Map<string, { entry: Entry; turn: number }>()
  readonly #unused = new Set<string>()
  readonly #uses = new Map<string, number>()
  /** How many of the entries have a turn when they are replayed. */
  protected readonly turns: number
  #hasStopped = false
  #closed = false
  #halted: Error | undefined

  /** @param recorded decrypted, in the order of replay */
  constructor(recorded: readonly Entry[], life: Life) {
    this.#life = life
    let turns = 0
    for (const entry of recorded) {
      // Nobody replays a bare intent, or what was undone.
      if (entry.completed && isHandlers(entry.kind)) turns++
      this.#entries.set(idOf(entry), { entry, turn: turns })
      this.#unused.add(idOf(entry))
    }
    this.turns = turns
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
    return [...this.#unused].flatMap((id) => {
      const { name, occurrence, kind } = (this.#entries.get(id) as { entry: Entry }).entry
      if (!isHandlers(kind)) return []
      return occurrence === 1 ? name : `${name} (${occurrence})`
    })
  }

  /**
   * Takes the next occurrence of a name. Throws if this attempt must not go on.
   * @throws PawlError `superseded`
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
    const entry = this.#entries.get(idOf({ name, occurrence }))?.entry
    this.#unused.delete(idOf({ name, occurrence }))
    if (!entry?.completed && isHandlers(kind) && !this.isGivingUp) this.checkHalted()
    if (!entry && this.#closed && isHandlers(kind)) {
      throw new PawlError(
        'superseded',
        `"${name}" was started after the handler had given its final answer.`,
        'Wait for all branches before you answer: Promise.allSettled, in place of Promise.all.',
      )
    }
    if (!entry && this.isGivingUp && isHandlers(kind)) {
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
    return { name, occurrence, kind, entry }
  }

  /** Whether an earlier attempt has given up, and compensations may have run. */
  get isGivingUp(): boolean {
    return this.#entries.has(idOf({ name: GIVING_UP, occurrence: 1 }))
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
    return this.#entries.has(idOf({ name, occurrence: 1 }))
  }

  protected turnOf(use: StepName): number | undefined {
    return this.#entries.get(idOf(use))?.turn
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

/** Whether the handler asks for entries of this kind. */
function isHandlers(kind: StepKind): boolean {
  return kind !== 'compensation' && kind !== 'giving-up'
}

export function idOf({ name, occurrence }: StepName): string {
  return `${occurrence} ${name}`
}
