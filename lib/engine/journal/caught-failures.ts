import { PawlError, type PawlErrorCode } from '../../errors/index.ts'
import type { StepStore } from '../../store/step-store.ts'
import type { AttemptRef } from '../../store/execution-store.ts'
import type { EntryCodec } from './entry-codec.ts'
import type { Use } from './journal-reader.ts'

/** Errors that say nothing of the step. */
const OTHERS = new Set<PawlErrorCode>([
  'divergence',
  'stopping',
  'store-refused',
  'store-unavailable',
  'superseded',
])

interface Failure {
  use: Use
  error: Error
  /** The last position that was taken before it. */
  position: number
}

/**
 * Failures of steps that the code has seen and that are not recorded, so that the next attempt runs
 * those steps again. Code that has gone on to wait for something has survived them: it may have gone another
 * way since, and must go it again when it wakes up. So they are recorded before an execution falls asleep.
 */
export class Survived {
  readonly #failures: Failure[] = []

  note(use: Use, error: unknown, position: number): void {
    if (!(error instanceof Error)) return
    if (error instanceof PawlError && OTHERS.has(error.code)) return
    this.#failures.push({ use, error, position })
  }

  /** Records them, each behind what the code had seen before it. Whoever is not current records nothing. */
  async keep(store: StepStore, codec: EntryCodec, ref: AttemptRef): Promise<void> {
    await Promise.all(
      this.#failures.map(({ use: { name, occurrence, kind }, error, position }) =>
        store.record({
          ...ref,
          name,
          occurrence,
          kind,
          position,
          ...codec.encode({ name, occurrence, kind }, { error }),
          tookMs: 0,
          completed: true,
          onlyIfCurrent: true,
        }),
      ),
    )
    this.#failures.length = 0
  }
}
