/** Holds the entries that earlier attempts recorded, and notes which of them the code has called. */

import type { JournalEntry, StepId, StepKind } from '../../store/step-store.ts'
import { decodeValue } from '../values/value-codec.ts'

/** The name of entries about the execution as a whole. A step's name is never empty, so no step has it. */
export const EXECUTION_ENTRY_NAME = ''

/** The kinds of entries that the code does not get in the order of replay. */
const UNORDERED_KINDS = new Set<StepKind>(['compensation', 'divergence', 'giving-up', 'patch'])

/** The output of a `divergence` entry: how the code of an attempt did not fit the journal. Stored as it is. */
export interface Divergence {
  /** The recorded steps that the code had not called, named as in `uncalledSteps`. */
  skipped: string[]
}

/** The entries that earlier attempts recorded, and which of them this attempt has called. */
export class RecordedEntries {
  readonly #entries = new Map<string, { entry: JournalEntry; position: number }>()
  readonly #uncalled = new Set<string>()
  /** The numbers of attempts whose code did not fit the journal. */
  readonly #divergedAttempts = new Set<number>()
  /** The steps that those attempts had not called; a person has released the execution since. */
  readonly #acceptedSkips = new Set<string>()
  /** The number of entries that have a position in the order of replay. */
  readonly positionCount: number

  /** @param entries decrypted, in the order of replay */
  constructor(entries: readonly JournalEntry[]) {
    let position = 0
    for (const entry of entries) {
      // Intents are not replayed, nor are entries that are read out of order: no position of their own.
      if (entry.completed && !UNORDERED_KINDS.has(entry.kind)) position++
      this.#entries.set(entryKey(entry), { entry, position })
      this.#uncalled.add(entryKey(entry))
      if (entry.kind !== 'divergence') continue
      this.#divergedAttempts.add(entry.attempt)
      const { skipped } = decodeValue(entry.output) as Divergence
      for (const name of skipped) this.#acceptedSkips.add(name)
    }
    this.positionCount = position
  }

  get(name: StepId): JournalEntry | undefined {
    return this.#entries.get(entryKey(name))?.entry
  }

  /** The position of an entry in the order of replay; undefined if it was recorded after the attempt began. */
  positionOf(name: StepId): number | undefined {
    return this.#entries.get(entryKey(name))?.position
  }

  /** Notes that the code has called this step, and returns its entry. */
  markCalled(name: StepId): JournalEntry | undefined {
    this.#uncalled.delete(entryKey(name))
    return this.get(name)
  }

  /**
   * The recorded steps that the code has not called. It need not call the steps that a diverged attempt
   * recorded, nor those that such an attempt had not called, since the execution was released after that. Nor need
   * it ask for a patch that was decided against: code without the patch does the same.
   */
  get uncalledSteps(): string[] {
    return [...this.#uncalled].flatMap((id) => {
      const { entry } = this.#entries.get(id) as { entry: JournalEntry }
      const { name, occurrence, kind, attempt } = entry
      if (
        name === EXECUTION_ENTRY_NAME ||
        kind === 'compensation' ||
        (kind === 'patch' && decodeValue(entry.output) === false) ||
        this.#divergedAttempts.has(attempt)
      )
        return []
      const shown = occurrence === 1 ? name : `${name} (${occurrence})`
      return this.#acceptedSkips.has(shown) ? [] : shown
    })
  }
}

/** Returns a map key for a step: its occurrence and name. */
export function entryKey({ name, occurrence }: StepId): string {
  return `${occurrence} ${name}`
}
