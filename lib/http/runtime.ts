import type { Engine } from '../engine/engine.ts'
import { PawlError } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'

/**
 * A `Pawl`, as the adapters accept it. Opaque: only class Pawl implements it, and nothing of it is for
 * the app to use.
 */
export interface PawlLike {
  readonly '~pawl': object
}

/** The parts of a Pawl that keyed requests use. */
export interface RequestRuntime {
  /** @throws PawlError `not-started` */
  readonly engine: Engine
  readonly logger: Logger
  /** The longest that a response waits for the store, in ms. */
  readonly storeTimeoutMs: number
  /** @throws PawlError `recovery-impossible` if `recoverRequests()` was not called in this process */
  checkRecovery(): void
}

/**
 * Opens what a framework's `idempotency()` was given.
 * @throws PawlError `invalid-option` if it is no Pawl, the mistake of who forgets the argument
 */
export function runtimeOf(pawl: PawlLike | undefined): RequestRuntime {
  const runtime = pawl?.['~pawl']
  if (runtime) return runtime as RequestRuntime
  throw new PawlError(
    'invalid-option',
    'idempotency(): the first argument is not a Pawl.',
    'Give the instance: idempotency(pawl, options).',
  )
}
