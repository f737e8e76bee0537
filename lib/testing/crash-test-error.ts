/** The error of a crash test: lists, for each crash, what it changed and the likely reason. */

import { inspect } from 'node:util'
import type { Difference } from './compare-values.ts'

/** A crash that changed the result of the request. */
export interface CrashTestFailure {
  /** Where the process died, in words to follow "crash"; then where its successor died, if it did. */
  crashes: string[]
  /** What is wrong, and the likely reason. */
  reason: string
  differences: Difference[]
}

/** How many differences a message lists. */
const MAX_LISTED = 10

/**
 * Some crash changes what the request does, or the test was not possible. `expected` and `actual` hold
 * the values that differ at the first such crash point, for test runners that show them.
 */
export class CrashTestError extends Error {
  override readonly name = 'CrashTestError'
  /** One entry for each crash point that changes something; empty if the test was not possible. */
  readonly failures: readonly CrashTestFailure[]
  readonly expected?: Record<string, unknown>
  readonly actual?: Record<string, unknown>

  constructor(message: string, failures: readonly CrashTestFailure[] = []) {
    super([message, ...failures.map(formatFailure)].join('\n\n'))
    this.failures = failures
    const found = failures.find(({ differences }) => differences.length > 0)
    if (!found) return
    this.expected = valuesByPath(found.differences, 'expected')
    this.actual = valuesByPath(found.differences, 'actual')
  }
}

/** Formats differences as text, one line each. */
export function listDifferences(differences: readonly Difference[]): string {
  const lines = differences
    .slice(0, MAX_LISTED)
    .map(
      ({ path, expected, actual }) =>
        `  ${path}: expected ${formatValue(expected)}, got ${formatValue(actual)}`,
    )
  const more = differences.length - MAX_LISTED
  return [...lines, ...(more > 0 ? [`  and ${more} more`] : [])].join('\n')
}

function formatFailure({ crashes, reason, differences }: CrashTestFailure): string {
  const [first, ...more] = crashes
  const title = [`Crash ${first}`, ...more.map((crash) => `and again ${crash}`)].join(', ')
  const list = listDifferences(differences)
  return `${title}:\n${list ? `${list}\n` : ''}  ${reason}`
}

function formatValue(value: unknown): string {
  return inspect(value, {
    depth: 4,
    breakLength: Infinity,
    maxStringLength: 300,
    maxArrayLength: 20,
  })
}

function valuesByPath(differences: readonly Difference[], side: 'expected' | 'actual') {
  return Object.fromEntries(differences.map((difference) => [difference.path, difference[side]]))
}
