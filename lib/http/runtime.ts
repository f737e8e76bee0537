/** Declares the parts of a Pawl that keyed requests use, and gets them from the instance that the app passes. */

import type { Engine } from '../engine/engine.ts'
import { PawlError } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'

/**
 * A `Pawl` instance, as the adapters accept it. Only class Pawl implements this type, and the app uses
 * none of its members.
 */
export interface PawlLike {
  readonly '~pawl': object
}

/** The parts of a Pawl that keyed requests use. */
export interface RequestRuntime {
  /** @throws PawlError `not-started` */
  readonly engine: Engine
  readonly logger: Logger
  /** The longest time that a response waits for the store, in ms. */
  readonly storeTimeoutMs: number
  /** @throws PawlError `recovery-impossible` if `recoverRequests()` was not called in this process */
  checkRecovery(): void
}

/**
 * The runtime of the Pawl that was passed to `idempotency()`.
 * @throws PawlError `invalid-option` if the argument is missing or not a Pawl
 */
export function runtimeOf(pawl: PawlLike | undefined): RequestRuntime {
  const runtime = pawl?.['~pawl']
  if (runtime) return runtime as RequestRuntime
  throw new PawlError(
    'invalid-option',
    'idempotency(): the first argument is not a Pawl.',
    'Pass the instance: idempotency(pawl, options).',
  )
}
