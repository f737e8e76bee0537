/** The options and the results of `Engine.begin`. */

import { PawlError } from '../errors/index.ts'
import type { Claim, Outcome } from '../store/execution-store.ts'
import type { Attempt, AttemptOptions } from './attempt.ts'

/** A request to run an execution or to get its outcome. */
export interface BeginOptions {
  claim: Claim
  /**
   * Whether the execution may run again after an attempt that ended without an outcome; undefined: only if
   * something is recorded in its journal.
   */
  resumable: boolean | undefined
  /** How long to wait for an attempt that is already running, in ms. */
  waitMs: number
  /** Returns a signal that ends the wait, such as when the client has disconnected. Called before waiting. */
  signal?: () => AbortSignal
}

/** How a call of `Engine.begin` ends. */
export type BeginResult =
  /** The caller has the execution and must run this attempt. */
  | { kind: 'run'; attempt: Attempt }
  /** The execution has an outcome. */
  | { kind: 'replay'; outcome: Outcome }
  /** The execution under this key has another fingerprint. */
  | { kind: 'mismatch' }
  /** Another attempt is still running after the wait. */
  | { kind: 'running' }
  /** An earlier attempt ended without a result, so its effects are unknown. */
  | { kind: 'unknown' }

/** The options of the attempt that a call begins. */
export function attemptOptionsOf({
  claim: { scope, key, fingerprint },
  resumable,
}: BeginOptions): Omit<AttemptOptions, 'recorded'> {
  return { scope, key, fingerprint, resumable, recovering: false }
}

/** The error of a call to a process that shuts down. */
export function stopping(): PawlError {
  return new PawlError(
    'stopping',
    'This process is shutting down and accepts no more work.',
    'Retry: another process will answer.',
  )
}
