/** What a call does about an execution that exists already. */

import type { StoredExecution } from '../store/execution-store.ts'
import type { BeginOptions, BeginResult } from './begin-options.ts'
import { decryptOutcome } from './outcome-encryption.ts'
import type { Encryptor } from './values/encryptor.ts'

/** What to do about an execution that this process does not run; `free`: try to claim it. */
export type Decision = Exclude<BeginResult, { kind: 'run' }> | { kind: 'free' }

/** @throws PawlError `decryption-failed` */
export function decide(
  found: StoredExecution,
  { claim, resumable }: BeginOptions,
  encryptor: Encryptor,
): Decision {
  if (found.expired) return { kind: 'free' }
  if (!found.fingerprint.equals(claim.fingerprint)) return { kind: 'mismatch' }
  if (found.outcome)
    return { kind: 'replay', outcome: decryptOutcome(encryptor, claim.id, found.outcome) }
  if (found.status === 'released' || found.status === 'parked') return { kind: 'free' }
  if (found.status === 'running' && found.ownerAlive) return { kind: 'running' }
  // One rule for an interrupted execution and for one already marked `unknown`: if a step is recorded,
  // it can be resumed; if nothing is, the effects of the attempt are unknown.
  return (resumable ?? found.hasSteps) ? { kind: 'free' } : { kind: 'unknown' }
}
