/** The options of `crashTest`, with their defaults and checks. */

import { z } from 'zod'
import { callback, type Duration, positiveDuration } from '../options/parse-options.ts'
import type { CrashTestAnswer } from './crash-test-answer.ts'
import type { TestableDatabase } from './killable-database.ts'

/** Options of {@link crashTest}. */
export interface CrashTestOptions<D extends TestableDatabase> {
  /** The test's database: a `pg.Pool`, or a PGlite instance. `makeApp` gets a wrapper of it. */
  database: D
  /** The schema that contains Pawl's tables. Default `'pawl'`. */
  schema?: string
  /**
   * Returns the effects of a run as plain data: rows, calls of a fake provider. They must be the same after
   * every run: count only what belongs to this key, or let `reset` clear the effects before each run.
   */
  check: (run: { key: string; answer: CrashTestAnswer }) => unknown
  /** Restores the state that the app started with; called before each run. Default: does nothing. */
  reset?: () => unknown
  /**
   * Returns the part of an answer that must be the same. Values that differ between two runs without
   * crashes (an id, a time) may differ in any case. Default: the whole answer.
   */
  outcome?: (answer: CrashTestAnswer) => unknown
  /**
   * How many processes die in one run, one after the other: 1 or 2. With 2, each crash point of the
   * recovery is tried as well, which squares the number of runs. Default 1.
   */
  crashes?: 1 | 2
  /** How often a request is sent again while its answer is not final. Default 10. */
  retries?: number
  /** How long one answer may take. Default `'30s'`. */
  timeout?: Duration
  /** Is called with a line of text after each run. Default: no log. */
  log?: (line: string) => void
}

function isTestableDatabase(value: unknown): boolean {
  const { connect, exec } = (value ?? {}) as { connect?: unknown; exec?: unknown }
  return typeof connect === 'function' || typeof exec === 'function'
}

const RETRIES = 'a whole number from 0 to 1000'

export const crashTestOptions = z.strictObject({
  database: z.custom<TestableDatabase>(isTestableDatabase, 'a pg.Pool or a PGlite instance'),
  schema: z.string('the name of a schema').default('pawl'),
  check: callback,
  reset: callback.optional(),
  outcome: callback.optional(),
  crashes: z.union([z.literal(1), z.literal(2)], '1 or 2').default(1),
  retries: z.int(RETRIES).min(0, RETRIES).max(1000, RETRIES).default(10),
  timeout: positiveDuration.default(30_000),
  log: callback.optional(),
})

const BODY = 'a string, bytes, or an object'

export const crashTestRequest = z.strictObject({
  method: z.string('a method').default('POST'),
  path: z.string('a path').regex(/^\//, 'a path that begins with /'),
  headers: z
    .record(z.string(), z.union([z.string(), z.array(z.string())]), 'an object of strings')
    .default({}),
  body: z
    .custom<string | Uint8Array | object>(
      (value) => typeof value === 'string' || (typeof value === 'object' && value !== null),
      BODY,
    )
    .optional(),
})
