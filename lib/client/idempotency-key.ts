import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { KeySettings } from './options.ts'

/** A random UUID (RFC 9562, version 4). */
function randomKey(): string {
  // Pages without TLS have no randomUUID, but do have getRandomValues.
  if (crypto.randomUUID) return crypto.randomUUID()
  const digit = () => crypto.getRandomValues(new Uint8Array(1))[0]! & 15
  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replaceAll(/[xy]/g, (letter) =>
    (letter === 'x' ? digit() : (digit() & 3) | 8).toString(16),
  )
}

/**
 * The key of a call: the caller's own, or a new one where the method asks for it.
 * @param sent the header's value, if the caller has set it
 */
export function keyFor(
  url: string,
  method: string,
  sent: string | null | undefined,
  settings: KeySettings,
): string | undefined {
  if (sent != null) return parseKey(sent)
  if (!settings.methods.includes(method)) return undefined
  return settings.key({ url, method }) ?? randomKey()
}

/** The key in a header's value: the content of a string in double quotes, or the bare value. */
export function parseKey(value: string): string {
  const quoted = /^"((?:[^"\\]|\\["\\])*)"/.exec(value)
  return quoted ? quoted[1]!.replaceAll(/\\(.)/g, '$1') : value
}

/**
 * The header's value for a key.
 * @param quoted as a structured-field string (RFC 8941, section 4.1.6), as the IETF draft asks
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
