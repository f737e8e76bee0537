/** What a client prefers (RFC 7240), as far as Pawl knows it. */
export interface Preferences {
  /** It would rather be answered 202 than wait. */
  respondAsync: boolean
  /** How long it is ready to wait, in ms; undefined if it does not say. */
  waitMs: number | undefined
}

const NONE: Preferences = { respondAsync: false, waitMs: undefined }

// RFC 7240, section 2, with token, quoted-string and white space as RFC 9110, section 5.6, has them.
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const QUOTED =
  '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t \\x21-\\x7e\\x80-\\xff])*"'
const WORD = `(?:[ \\t]*=[ \\t]*(${TOKEN}|${QUOTED}))?`
const PREFERENCE = new RegExp(
  `[ \\t]*(?:(${TOKEN})${WORD}((?:[ \\t]*;(?:[ \\t]*${TOKEN}${WORD})?)*))?[ \\t]*(?:,|$)`,
  'y',
)

/** Seconds; nobody waits for more than nine digits of them. */
const SECONDS = /^\d{1,9}$/

/**
 * A header that is not well-formed says nothing, and so does a value that makes no sense: a preference
 * is no condition, and must not make a request fail (RFC 7240, section 2).
 *
 * @param header the value of Prefer, its lines joined by commas; undefined if there is none
 */
export function parsePrefer(header: string | undefined): Preferences {
  if (!header) return NONE
  const found = new Map<string, string>()
  PREFERENCE.lastIndex = 0
  while (PREFERENCE.lastIndex < header.length) {
    const match = PREFERENCE.exec(header)
    if (!match) return NONE
    const name = match[1]?.toLowerCase()
    // Of a preference that is given twice the first counts.
    if (name && !found.has(name)) found.set(name, unquoted(match[2] ?? ''))
  }
  const wait = found.get('wait') ?? ''
  return {
    // With a value it is another preference, of which nobody knows what it means.
    respondAsync: found.get('respond-async') === '',
    waitMs: SECONDS.test(wait) ? Number(wait) * 1000 : undefined,
  }
}

function unquoted(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/gs, '$1') : word
}
