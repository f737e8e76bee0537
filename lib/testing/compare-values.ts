import { inspect, isDeepStrictEqual } from 'node:util'

/** One place at which two values differ. */
export interface Difference {
  /** `check.charges[0].amount` */
  path: string
  expected: unknown
  actual: unknown
}

/** Stands for what an app makes anew for each request: an id, a time. */
class Anything {
  readonly #type: string

  constructor(type: string) {
    this.#type = type
  }

  accepts(value: unknown): boolean {
    return typeof value === this.#type
  }

  [inspect.custom](): string {
    return `<any ${this.#type}>`
  }
}

/** What two answers to the same request have in common: a value, in which what differs is open. */
export function inCommon(a: unknown, b: unknown): unknown {
  if (isDeepStrictEqual(a, b)) return a
  const keys = sharedKeys(a, b)
  if (!keys) return new Anything(typeof a)
  const common: unknown[] | Record<string, unknown> = Array.isArray(a) ? [] : {}
  for (const key of keys) Object.assign(common, { [key]: inCommon(at(a, key), at(b, key)) })
  return common
}

/** Where a value differs from what is expected. */
export function differences(expected: unknown, actual: unknown, path: string): Difference[] {
  if (expected instanceof Anything) {
    return expected.accepts(actual) ? [] : [{ path, expected, actual }]
  }
  const keys = sharedKeys(expected, actual)
  if (keys) {
    return keys.flatMap((key) => {
      const deeper = Array.isArray(expected) ? `${path}[${key}]` : `${path}.${key}`
      return differences(at(expected, key), at(actual, key), deeper)
    })
  }
  return isDeepStrictEqual(expected, actual) ? [] : [{ path, expected, actual }]
}

/** The keys of two plain objects, or of two arrays of one length; null of anything else. */
function sharedKeys(a: unknown, b: unknown): string[] | null {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length ? Object.keys(a) : null
  if (!isPlain(a) || !isPlain(b)) return null
  return [...new Set([...Object.keys(a), ...Object.keys(b)])]
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  // By its place and not its identity: test runners have an Object of their own.
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function at(value: unknown, key: string): unknown {
  return (value as Record<string, unknown>)[key]
}
