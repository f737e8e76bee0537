import { z } from 'zod'
import { callback, type Duration, longerThanZero } from '../options/parse-options.ts'
import type { CrashTestAnswer } from './crash-test-answer.ts'
import type { TestableDatabase } from './killable-database.ts'

/** Options of {@link crashTest}. */
export interface CrashTestOptions<D extends TestableDatabase> {
  /** The test's database: a `pg.Pool`, or a PGlite instance. `makeApp` is given one in its place. */
  database: D
  /** The schema Pawl lives in. Default `'pawl'`. */
  schema?: string
  /**
   * What a run has done, in plain data: rows, calls of a fake provider. It must be the same after every
   * run, so it counts what belongs to this key, or `reset` starts each run from nothing.
   */
  check: (run: { key: string; answer: CrashTestAnswer }) => unknown
  /** Brings the app's world back to where it started; called before each run. Default: nothing. */
  reset?: () => unknown
  /**
   * What of an answer must be the same. What differs between two undisturbed runs (an id, a time) may
   * differ anyway. Default: all of it.
   */
  outcome?: (answer: CrashTestAnswer) => unknown
  /**
   * How many processes die in one run, one after the other: 1 or 2. With 2, each crash point of the
   * recovery is tried as well, so the number of runs is about that of 1 squared. Default 1.
   */
  crashes?: 1 | 2
  /** How often a request is sent again that got an answer that is not final. Default 10. */
  retries?: number
  /** How long one answer may take. Default `'30s'`. */
  timeout?: Duration
  /** Is told of each run as it ends. Default: nobody is. */
  log?: (line: string) => void
}

function isTestable(value: unknown): boolean {
  const { connect, exec } = (value ?? {}) as { connect?: unknown; exec?: unknown }
  return typeof connect === 'function' || typeof exec === 'function'
}

const RETRIES = 'a whole number from 0 to 1000'

export const crashTestOptions = z.strictObject({
  database: z.custom<TestableDatabase>(isTestable, 'a pg.Pool or a PGlite instance'),
  schema: z.string('the name of a schema').default('pawl'),
  check: callback,
  reset: callback.optional(),
  outcome: callback.optional(),
  crashes: z.union([z.literal(1), z.literal(2)], '1 or 2').default(1),
  retries: z.int(RETRIES).min(0, RETRIES).max(1000, RETRIES).default(10),
  timeout: longerThanZero.default(30_000),
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
