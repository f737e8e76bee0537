import type { Entry, StepName } from '../../store/step-store.ts'
import { decodeValue } from '../values/value-codec.ts'

/** The name of what is recorded of an execution as a whole. No step has it: a step's is not empty. */
export const WHOLE = ''

/** What is recorded of an attempt whose code did not fit the journal. */
export interface Divergence {
  /** What it had not asked for, as `skipped` names it. */
  skipped: string[]
}

/** What earlier attempts have recorded of an execution, and what this one has asked for of it. */
export class RecordedEntries {
  readonly #entries = new Map<string, { entry: Entry; position: number }>()
  readonly #unused = new Set<string>()
  /** Attempts that did not fit, and what they skipped: somebody has looked at that since. */
  readonly #diverged = new Set<number>()
  readonly #accepted = new Set<string>()
  /** How many of them have a turn when they are replayed. */
  readonly turns: number

  /** @param entries in the order of replay, decrypted */
  constructor(entries: readonly Entry[]) {
    let position = 0
    for (const entry of entries) {
      // Nobody replays a bare intent, what was undone, or what is said of the whole: they have no turn.
      if (entry.completed && entry.kind !== 'compensation' && entry.name !== WHOLE) position++
      this.#entries.set(idOf(entry), { entry, position })
      this.#unused.add(idOf(entry))
      if (entry.kind !== 'divergence') continue
      this.#diverged.add(entry.attempt)
      const { skipped } = decodeValue(entry.output) as Divergence
      for (const name of skipped) this.#accepted.add(name)
    }
    this.turns = position
  }

  get(name: StepName): Entry | undefined {
    return this.#entries.get(idOf(name))?.entry
  }

  /** Its turn in the order of replay; undefined if it was not there when the attempt began. */
  turnOf(name: StepName): number | undefined {
    return this.#entries.get(idOf(name))?.position
  }

  /** Notes that the code has asked for it. */
  use(name: StepName): Entry | undefined {
    this.#unused.delete(idOf(name))
    return this.get(name)
  }

  /**
   * Steps that this attempt has not asked for. What an attempt that did not fit has recorded is no part of
   * what the code must ask for; nor is what it had skipped, if the execution was released after that.
   */
  get skipped(): string[] {
    return [...this.#unused].flatMap((id) => {
      const { name, occurrence, kind, attempt } = (this.#entries.get(id) as { entry: Entry }).entry
      if (name === WHOLE || kind === 'compensation' || this.#diverged.has(attempt)) return []
      const shown = occurrence === 1 ? name : `${name} (${occurrence})`
      return this.#accepted.has(shown) ? [] : shown
    })
  }
}

export function idOf({ name, occurrence }: StepName): string {
  return `${occurrence} ${name}`
}
