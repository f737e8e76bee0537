/** Derives UUIDs from text: an execution's id, and other values that must be the same in every attempt. */

import { hash } from 'node:crypto'

/**
 * Returns the id of the execution with this scope and key: the first 128 bits of SHA-256 over scope, a
 * separator and key, with the version and variant bits of a UUIDv8 (RFC 9562, section 5.8). Because the
 * id is derived, finding an execution is a primary-key look-up. The separator is NUL, which neither
 * scope nor key may contain.
 */
export function executionId(scope: string, key: string): string {
  return derivedUuid(`${scope}\0${key}`)
}

/** Returns a UUIDv8 made of the first 128 bits of the text's SHA-256: the same text gives the same UUID. */
export function derivedUuid(text: string): string {
  const digest = hash('sha256', text, 'buffer')
  digest[6] = (digest[6]! & 0x0f) | 0x80
  digest[8] = (digest[8]! & 0x3f) | 0x80
  const hex = digest.toString('hex', 0, 16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
