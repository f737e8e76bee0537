import type { Outcome } from '../store/execution-store.ts'
import { isSealed, type Sealer } from './values/encryptor.ts'

/** An outcome as it is stored: headers and body are encrypted, if there are keys. */
export function sealOutcome(sealer: Sealer, executionId: string, outcome: Outcome): Outcome {
  if (!sealer.isActive) return outcome
  const { status, headers, body } = outcome
  return {
    status,
    headers: sealer.seal(headers, executionId, 'headers'),
    body: body && sealer.seal(body, executionId, 'body'),
  }
}

/** @throws PawlError `decryption-failed` */
export function openOutcome(sealer: Sealer, executionId: string, outcome: Outcome): Outcome {
  const { status, headers, body } = outcome
  // A body may begin with any byte; headers tell whether both are encrypted.
  if (!isSealed(headers)) return outcome
  return {
    status,
    headers: sealer.openSealed(headers, executionId, 'headers'),
    body: body && sealer.openSealed(body, executionId, 'body'),
  }
}
