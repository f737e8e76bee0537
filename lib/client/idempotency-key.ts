/** Chooses the idempotency key of a call, and reads and writes the header that carries it. */

import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { KeySettings } from './options.ts'

/** A random UUID (RFC 9562, version 4). */
function randomKey(): string {
  // Browsers offer randomUUID on pages with TLS only, but getRandomValues on all.
  if (crypto.randomUUID) return crypto.randomUUID()
  const digit = () => crypto.getRandomValues(new Uint8Array(1))[0]! & 15
  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replaceAll(/[xy]/g, (letter) =>
    (letter === 'x' ? digit() : (digit() & 3) | 8).toString(16),
  )
}

/**
 * The key of a call: the caller's own, or a new one if the `methods` option includes the method.
 * @param headerValue the header's value, if the caller has set it
 */
export function resolveKey(
  url: string,
  method: string,
  headerValue: string | null | undefined,
  settings: KeySettings,
): string | undefined {
  if (headerValue != null) return parseKey(headerValue)
  if (!settings.methods.includes(method)) return undefined
  return settings.key({ url, method }) ?? randomKey()
}

/** Reads the key from a header's value: the content of a string in double quotes, or the bare value. */
export function parseKey(value: string): string {
  const quoted = /^"((?:[^"\\]|\\["\\])*)"/.exec(value)
  return quoted ? quoted[1]!.replaceAll(/\\(.)/g, '$1') : value
}

/**
 * Writes the header's value for a key.
 * @param quoted whether to write a structured-field string (RFC 8941, section 4.1.6), as the IETF draft
 * requires
 * @throws IdempotentFetchError `key-malformed`
 */
export function formatKey(key: string, quoted: boolean): string {
  if (typeof key !== 'string' || !/^[ -~]{1,255}$/.test(key)) {
    throw new IdempotentFetchError(
      'key-malformed',
      `The key "${key}" is not 1 to 255 printable ASCII characters.`,
    )
  }
  return quoted ? `"${key.replaceAll(/["\\]/g, '\\$&')}"` : key
}
