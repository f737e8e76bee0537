/** Reads, merges and compares headers in the forms that Node and frameworks use. */

import { type ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import type { Header } from '../../http/headers.ts'
import { rawHeaderNames } from './server-response.ts'

/** Merges the headers set so far with those passed to `writeHead`, which take precedence. */
export function mergeHeaders(response: ServerResponse, given: unknown): Header[] {
  const merged = currentHeaders(response)
  const pairs: [string, unknown][] = []
  if (Array.isArray(given)) {
    for (let i = 0; i + 1 < given.length; i += 2) pairs.push([given[i], given[i + 1]])
  } else if (given && typeof given === 'object') pairs.push(...Object.entries(given))
  const seen = new Set<string>()
  for (const [name, value] of pairs) {
    validateHeaderName(name)
    for (const line of Array.isArray(value) ? value : [value]) validateHeaderValue(name, line)
    const lower = name.toLowerCase()
    const earlier = merged.get(lower)
    // A name that occurs twice in the flat form is sent as two lines.
    if (seen.has(lower) && earlier) earlier[1] = [earlier[1], toHeaderValue(value)].flat()
    else merged.set(lower, [name, toHeaderValue(value)])
    seen.add(lower)
  }
  return [...merged.values()]
}

/** The headers set so far, by lower-case name; each entry has the name as it was set. */
export function currentHeaders(response: ServerResponse): Map<string, Header> {
  return new Map(
    rawHeaderNames(response).map((name) => [
      name.toLowerCase(),
      [name, toHeaderValue(response.getHeader(name))],
    ]),
  )
}

export function isSameValue(a: unknown, b: unknown): boolean {
  return a === b || (Array.isArray(a) && isDeepStrictEqual(a, b))
}

export function toHeaderValue(value: unknown): string | string[] {
  return Array.isArray(value) ? value.map(String) : String(value)
}

/** Converts a plain object of headers to a map by lower-case name. */
export function toHeaderMap(headers: Readonly<Record<string, unknown>>): Map<string, Header> {
  const map = new Map<string, Header>()
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) map.set(name.toLowerCase(), [name, toHeaderValue(value)])
  }
  return map
}
