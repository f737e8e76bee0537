/** Finds the differences between two values, and what two values have in common. */

import { inspect, isDeepStrictEqual } from 'node:util'

/** One place where two values differ. */
export interface Difference {
  /** The path to the place: `check.charges[0].amount` */
  path: string
  expected: unknown
  actual: unknown
}

/** A placeholder that matches any value of a type, for values that differ in each request (an id, a time). */
class AnyOfType {
  readonly #type: string

  constructor(type: string) {
    this.#type = type
  }

  matches(value: unknown): boolean {
    return typeof value === this.#type
  }

  [inspect.custom](): string {
    return `<any ${this.#type}>`
  }
}

/** A pattern that both values match: parts that differ become placeholders for any value of their type. */
export function commonPattern(a: unknown, b: unknown): unknown {
  if (isDeepStrictEqual(a, b)) return a
  const keys = comparableKeys(a, b)
  if (!keys) return new AnyOfType(typeof a)
  const common: unknown[] | Record<string, unknown> = Array.isArray(a) ? [] : {}
  for (const key of keys) {
    Object.assign(common, { [key]: commonPattern(property(a, key), property(b, key)) })
  }
  return common
}

/**
 * Lists where a value differs from the expected one.
 * @param expected a value, or a pattern from `commonPattern`
 */
export function findDifferences(expected: unknown, actual: unknown, path: string): Difference[] {
  if (expected instanceof AnyOfType) {
    return expected.matches(actual) ? [] : [{ path, expected, actual }]
  }
  const keys = comparableKeys(expected, actual)
  if (keys) {
    return keys.flatMap((key) => {
      const deeper = Array.isArray(expected) ? `${path}[${key}]` : `${path}.${key}`
      return findDifferences(property(expected, key), property(actual, key), deeper)
    })
  }
  return isDeepStrictEqual(expected, actual) ? [] : [{ path, expected, actual }]
}

/** The keys of two plain objects, or of two arrays of the same length; null for other values. */
function comparableKeys(a: unknown, b: unknown): string[] | null {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length ? Object.keys(a) : null
  if (!isPlain(a) || !isPlain(b)) return null
  return [...new Set([...Object.keys(a), ...Object.keys(b)])]
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  // Does not compare with Object.prototype: test runners have an Object of their own.
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function property(value: unknown, key: string): unknown {
  return (value as Record<string, unknown>)[key]
}
