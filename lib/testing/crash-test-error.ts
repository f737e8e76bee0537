import { inspect } from 'node:util'
import type { Difference } from './compare-values.ts'

/** What a crash changed. */
export interface CrashTestFailure {
  /** Where the process died, in words that follow on "crash"; where its successor died, if it did. */
  crashes: string[]
  /** What is wrong, and what may be the reason. */
  reason: string
  differences: Difference[]
}

const SHOWN = 10

/**
 * A crash changes what the request does, or it cannot be told. `expected` and `actual` hold what differs
 * at the first crash point, for test runners that show it.
 */
export class CrashTestError extends Error {
  override readonly name = 'CrashTestError'
  /** One for each crash point that changes something; empty if the test itself is not possible. */
  readonly failures: readonly CrashTestFailure[]
  readonly expected?: Record<string, unknown>
  readonly actual?: Record<string, unknown>

  constructor(message: string, failures: readonly CrashTestFailure[] = []) {
    super([message, ...failures.map(describe)].join('\n\n'))
    this.failures = failures
    const found = failures.find(({ differences }) => differences.length > 0)
    if (!found) return
    this.expected = collect(found.differences, 'expected')
    this.actual = collect(found.differences, 'actual')
  }
}

/** A list of differences, for people. */
export function listDifferences(differences: readonly Difference[]): string {
  const lines = differences
    .slice(0, SHOWN)
    .map(
      ({ path, expected, actual }) => `  ${path}: expected ${show(expected)}, got ${show(actual)}`,
    )
  const more = differences.length - SHOWN
  return [...lines, ...(more > 0 ? [`  and ${more} more`] : [])].join('\n')
}

function describe({ crashes, reason, differences }: CrashTestFailure): string {
  const [first, ...more] = crashes
  const title = [`Crash ${first}`, ...more.map((crash) => `and again ${crash}`)].join(', ')
  const list = listDifferences(differences)
  return `${title}:\n${list ? `${list}\n` : ''}  ${reason}`
}

function show(value: unknown): string {
  return inspect(value, {
    depth: 4,
    breakLength: Infinity,
    maxStringLength: 300,
    maxArrayLength: 20,
  })
}

function collect(differences: readonly Difference[], side: 'expected' | 'actual') {
  return Object.fromEntries(differences.map((difference) => [difference.path, difference[side]]))
}
