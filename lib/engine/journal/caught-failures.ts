/** Collects failures of steps that the code saw, and records them before the execution sleeps. */

import { PawlError, type PawlErrorCode } from '../../errors/index.ts'
import type { AttemptRef } from '../../store/execution-store.ts'
import type { StepStore } from '../../store/step-store.ts'
import type { EntryCodec } from './entry-codec.ts'
import type { StepCall } from './journal-reader.ts'

/** Errors of Pawl itself; they say nothing about the step, so they are not recorded as its failure. */
const PAWL_FAILURES = new Set<PawlErrorCode>([
  'divergence',
  'stopping',
  'store-refused',
  'store-unavailable',
  'pool-exhausted',
  'superseded',
])

interface CaughtFailure {
  call: StepCall
  error: Error
  /** The last position that was reserved before the failure. */
  position: number
}

/**
 * Failures of steps that the code has seen and that are not recorded, since the next attempt is to run
 * those steps again. If the code goes on to wait for something, it has caught them and may have taken
 * another branch because of them. It must take the same branch when it wakes up, so these failures are
 * recorded before the execution sleeps.
 */
export class CaughtFailures {
  readonly #failures: CaughtFailure[] = []

  /** @param position the last position that was reserved before the failure */
  add(call: StepCall, error: unknown, position: number): void {
    if (!(error instanceof Error)) return
    if (error instanceof PawlError && PAWL_FAILURES.has(error.code)) return
    this.#failures.push({ call, error, position })
  }

  /**
   * Records the failures, each at the position after which the code saw it. Records nothing if the attempt
   * is no longer the current one.
   */
  async record(store: StepStore, codec: EntryCodec, ref: AttemptRef): Promise<void> {
    await Promise.all(
      this.#failures.map(({ call: { name, occurrence, kind }, error, position }) =>
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
