import { type ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import type { Header } from '../../http/headers.ts'
import { rawHeaderNames } from './server-response.ts'

/** The headers set so far and those given to writeHead, which win. */
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
    // Given twice in the flat form: two lines.
    if (seen.has(lower) && earlier) earlier[1] = [earlier[1], toValue(value)].flat()
    else merged.set(lower, [name, toValue(value)])
    seen.add(lower)
  }
  return [...merged.values()]
}

/** By lower-case name, with the name as it was set. */
export function currentHeaders(response: ServerResponse): Map<string, Header> {
  return new Map(
    rawHeaderNames(response).map((name) => [
      name.toLowerCase(),
      [name, toValue(response.getHeader(name))],
    ]),
  )
}

export function isSame(a: unknown, b: unknown): boolean {
  return a === b || (Array.isArray(a) && isDeepStrictEqual(a, b))
}

export function toValue(value: unknown): string | string[] {
  return Array.isArray(value) ? value.map(String) : String(value)
}

/** Of a plain object, by lower-case name. */
export function headerMap(headers: Readonly<Record<string, unknown>>): Map<string, Header> {
  const map = new Map<string, Header>()
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) map.set(name.toLowerCase(), [name, toValue(value)])
  }
  return map
}
