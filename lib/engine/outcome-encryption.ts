/** Encrypts and decrypts the headers and body of a stored outcome. */

import type { Outcome } from '../store/execution-store.ts'
import { type Encryptor, isEncrypted } from './values/encryptor.ts'

/** Encrypts an outcome's headers and body for storage; without encryption keys, returns it unchanged. */
export function encryptOutcome(
  encryptor: Encryptor,
  executionId: string,
  outcome: Outcome,
): Outcome {
  if (!encryptor.isActive) return outcome
  const { status, headers, body } = outcome
  return {
    status,
    headers: encryptor.encrypt(headers, executionId, 'headers'),
    body: body && encryptor.encrypt(body, executionId, 'body'),
  }
}

/**
 * Decrypts a stored outcome; returns one that was stored unencrypted unchanged.
 * @throws PawlError `decryption-failed`
 */
export function decryptOutcome(
  encryptor: Encryptor,
  executionId: string,
  outcome: Outcome,
): Outcome {
  const { status, headers, body } = outcome
  // An unencrypted body may begin with any byte, JSON headers may not: only they tell whether both are
  // encrypted.
  if (!isEncrypted(headers)) return outcome
  return {
    status,
    headers: encryptor.decryptCiphertext(headers, executionId, 'headers'),
    body: body && encryptor.decryptCiphertext(body, executionId, 'body'),
  }
}
