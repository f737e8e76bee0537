/** Parses and validates idempotency keys. */

import { ParseError, parseItem } from 'structured-headers'

/** Longest key in characters. */
export const MAX_KEY_LENGTH = 255

/** A valid key, or the rule that the given one breaks. */
export type ParsedKey = { key: string } | { brokenRule: string }

// Keys that clients send without quotes: UUIDs, ULIDs, nanoids, base64. Unlike a token of RFC 8941
// (section 3.3.4), such a key may begin with a digit and contain the padding of base64.
const BARE = /^[A-Za-z0-9*_-][A-Za-z0-9!#$%&'*+\-.^_`|~:/=]*$/
const NUMBER = /^-?\d+(\.\d*)?$/

/**
 * Parses an Idempotency-Key header: a structured-field Item that is a String (RFC 8941, section
 * 3.3.3; draft-ietf-httpapi-idempotency-key-header-07, section 2.1). Parameters are ignored.
 * Unless `strict`, it may also be a bare token, as most clients send; both forms are the same key.
 *
 * @param lines the header's values, one for each header line; empty if there is no header
 */
export function parseKeyHeader(lines: readonly string[], strict: boolean): ParsedKey {
  if (lines.length > 1) return { brokenRule: 'the header must not be repeated' }
  const value = (lines[0] ?? '').replace(/^[ \t]+|[ \t]+$/g, '')
  if (value === '') return { brokenRule: 'the value must not be empty' }
  if (value.startsWith('"')) return checkLength(parseString(value))
  if (strict) {
    return { brokenRule: 'the value must be a string in double quotes (RFC 8941, section 3.3.3)' }
  }
  return checkLength(parseBare(value))
}

function parseString(value: string): ParsedKey {
  try {
    const [item] = parseItem(value)
    if (typeof item === 'string') return { key: item }
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
  }
  return {
    brokenRule:
      'the value must be one string in double quotes, of printable ASCII characters, with \\" and \\\\ as its only escapes (RFC 8941, section 3.3.3)',
  }
}

function parseBare(value: string): ParsedKey {
  const semicolon = value.indexOf(';')
  const bare = semicolon < 0 ? value : value.slice(0, semicolon)
  if (NUMBER.test(bare))
    return { brokenRule: 'a number must be written as a string in double quotes' }
  const malformed = {
    brokenRule:
      'the value must be one string in double quotes, or one token of letters, digits and -._~:/+=',
  }
  if (!BARE.test(bare)) return malformed
  if (semicolon >= 0) {
    try {
      parseItem(`key${value.slice(semicolon)}`)
    } catch {
      return malformed
    }
  }
  return { key: bare }
}

/** Validates a key that the app's `key` function returned. */
export function validateKey(key: unknown): ParsedKey {
  if (typeof key !== 'string') return { brokenRule: 'the key must be a string' }
  if (!key.isWellFormed()) return { brokenRule: 'the key must be well-formed Unicode' }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(key)) {
    return { brokenRule: 'the key must not contain control characters' }
  }
  return checkLength({ key })
}

function checkLength(parsed: ParsedKey): ParsedKey {
  if ('brokenRule' in parsed) return parsed
  if (parsed.key === '') return { brokenRule: 'the key must not be empty' }
  if (parsed.key.length > MAX_KEY_LENGTH) {
    return { brokenRule: `the key must have at most ${MAX_KEY_LENGTH} characters` }
  }
  return parsed
}
