/** Parses the Prefer header (RFC 7240). */

/** The preferences of a client that Pawl supports. */
export interface Preferences {
  /** The client prefers a 202 over waiting for the response. */
  respondAsync: boolean
  /** How long the client is willing to wait, in ms; undefined if it does not say. */
  waitMs: number | undefined
}

const NONE: Preferences = { respondAsync: false, waitMs: undefined }

// The grammar of RFC 7240, section 2; token, quoted-string and white space are those of RFC 9110, section 5.6.
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const QUOTED =
  '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t \\x21-\\x7e\\x80-\\xff])*"'
const WORD = `(?:[ \\t]*=[ \\t]*(${TOKEN}|${QUOTED}))?`
const PREFERENCE = new RegExp(
  `[ \\t]*(?:(${TOKEN})${WORD}((?:[ \\t]*;(?:[ \\t]*${TOKEN}${WORD})?)*))?[ \\t]*(?:,|$)`,
  'y',
)

/** A number of seconds; at most nine digits, since a longer wait is not realistic. */
const SECONDS = /^\d{1,9}$/

/**
 * Parses a Prefer header. A malformed header or an invalid value is ignored: a preference must not make
 * a request fail (RFC 7240, section 2).
 *
 * @param header the value of Prefer, its lines joined by commas; undefined if there is no header
 */
export function parsePreferHeader(header: string | undefined): Preferences {
  if (!header) return NONE
  const found = new Map<string, string>()
  PREFERENCE.lastIndex = 0
  while (PREFERENCE.lastIndex < header.length) {
    const match = PREFERENCE.exec(header)
    if (!match) return NONE
    const name = match[1]?.toLowerCase()
    // If a preference occurs twice, the first one counts.
    if (name && !found.has(name)) found.set(name, unquoted(match[2] ?? ''))
  }
  const wait = found.get('wait') ?? ''
  return {
    // RFC 7240 defines respond-async without a value; with one, its meaning is undefined.
    respondAsync: found.get('respond-async') === '',
    waitMs: SECONDS.test(wait) ? Number(wait) * 1000 : undefined,
  }
}

function unquoted(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/gs, '$1') : word
}
