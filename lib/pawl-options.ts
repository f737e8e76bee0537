/** The options of `new Pawl()`, with their defaults and checks. */

import { z } from 'zod'
import { defaultLogger, type Logger } from './options/logger.ts'
import {
  type ByteSize,
  byteSize,
  type Duration,
  positiveDuration,
  timerDuration,
} from './options/parse-options.ts'
import type { PgPool } from './store/database/pg-pool.ts'
import type { PGliteLike } from './store/database/pglite.ts'

/** Options of {@link Pawl}. */
export interface PawlOptions {
  /**
   * The app's PostgreSQL (15 or later): a `pg.Pool`, a connection string, or a PGlite instance. The app's pool
   * serves the transactions in which the app takes part. For its own statements Pawl opens a few connections
   * like the pool's (`maxConnections`), so that they never wait for connections that the app holds.
   */
  database: PgPool | PGliteLike | string
  /**
   * The largest number of connections that Pawl opens for its own statements, beside the pool: one listens for
   * notifications, one is for heartbeats, the others run statements. They open when needed and close after ten
   * idle seconds. At least 3. Default 5. All instances that are given the same pool share them. Ignored where
   * `database` is a pool of one connection, or PGlite: those are shared with the app.
   */
  maxConnections?: number
  /** The schema that contains Pawl's tables. Default `'pawl'`. */
  schema?: string
  /**
   * A stable name of this process among its peers (a pod's ordinal, a systemd unit). A process that
   * starts under the name declares its predecessor dead at once, so that a restart need not wait for
   * `processTimeout`. Two processes must not run under one name. Default: none.
   */
  instance?: string
  /** Apply missing migrations in `start()`. Safe with many processes. Default `false`. */
  migrate?: boolean
  /** A process without a heartbeat for this long counts as dead. At least 1 s. Default `'15s'`. */
  processTimeout?: Duration
  /** How long a statement may take, and a request waits for an unreachable database. Default `'5s'`. */
  storeTimeout?: Duration
  /**
   * How long `stop()` waits for running requests and workflows; `stop()` ends within this plus `storeTimeout`.
   * Default `'10s'`.
   */
  drainTimeout?: Duration
  /**
   * How many workflows this process runs at a time, if it defines any. `false`: the process only starts
   * workflows, and others run them (`npx pawl work`). Default `{ concurrency: 100 }`.
   */
  workers?: false | { concurrency?: number }
  /**
   * How much one execution may store; beyond that an error is thrown (`limit-exceeded`). Limits the `input`
   * and the `output` of a workflow, the result of one `step` of a request or a workflow (1 MiB each), and
   * how many `steps` it records (10,000).
   */
  limits?: { input?: ByteSize; output?: ByteSize; step?: ByteSize; steps?: number }
  /** How often this process deletes expired executions that no unfinished one wants. Default `'1 minute'`. */
  retentionInterval?: Duration
  /**
   * AES-256-GCM keys (32 bytes, or their base64) that encrypt stored responses, requests and step values.
   * The first key encrypts; the others only decrypt, for key rotation. Default: none.
   */
  encryptionKeys?: readonly { id: string; key: Uint8Array | string }[]
  /** Receives log messages. Default: warnings go to the console, debug messages need `NODE_DEBUG=pawl`. */
  logger?: Logger
}

const loggerSchema = z.custom<Logger>(
  (value) =>
    typeof (value as Logger | null)?.debug === 'function' &&
    typeof (value as Logger | null)?.warn === 'function',
  { message: 'an object with debug(message, fields) and warn(message, fields)' },
)

/** Checks for the method that each kind of database has: a pool connects, PGlite runs scripts. */
function isDatabase(value: unknown): boolean {
  if (typeof value === 'string') return value !== ''
  const { connect, exec } = (value ?? {}) as { connect?: unknown; exec?: unknown }
  return typeof connect === 'function' || typeof exec === 'function'
}

const KEY_FORMAT = '32 bytes, or their base64'
const encryptionKeySchema = z.strictObject(
  {
    id: z
      .string('a string of 1 to 100 characters')
      .regex(/^[\x21-\x7e]{1,100}$/, '1 to 100 printable ASCII characters'),
    key: z.unknown().transform((value, context): Uint8Array => {
      const bytes = typeof value === 'string' ? Buffer.from(value, 'base64') : value
      if (bytes instanceof Uint8Array && bytes.length === 32) return bytes
      context.addIssue({ code: 'custom', message: KEY_FORMAT })
      return z.NEVER
    }),
  },
  `{ id, key }, where key is ${KEY_FORMAT}`,
)

/** How many workflows a process runs at a time by default. */
const DEFAULT_CONCURRENCY = 100

/** Parses {@link PawlOptions} and fills in the defaults. */
export const pawlOptions = z.strictObject({
  database: z.custom<unknown>(isDatabase, {
    message: 'a pg.Pool, a connection string, or a PGlite instance',
  }),
  schema: z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'a lower-case identifier of at most 63 letters, digits and _')
    .default('pawl'),
  instance: z
    .string()
    .min(1, 'a name')
    .max(255, 'at most 255 characters')
    .refine((name) => name.isWellFormed() && !name.includes('\0'), 'text without NUL')
    .optional(),
  maxConnections: z.number('a whole number').int('a whole number').min(3, 'at least 3').default(5),
  migrate: z.boolean('true or false').default(false),
  processTimeout: timerDuration.refine((ms) => ms >= 1000, 'at least 1 second').default(15_000),
  storeTimeout: positiveDuration.default(5_000),
  drainTimeout: timerDuration.default(10_000),
  workers: z
    .union(
      [
        z.literal(false).transform(() => ({ concurrency: 0 })),
        z.strictObject({
          concurrency: z.number().int().min(1).max(10_000).default(DEFAULT_CONCURRENCY),
        }),
      ],
      'false, or { concurrency }, from 1 to 10000',
    )
    .default({ concurrency: DEFAULT_CONCURRENCY }),
  limits: z
    .strictObject({
      input: byteSize.default(1024 ** 2),
      output: byteSize.default(1024 ** 2),
      step: byteSize.default(1024 ** 2),
      steps: z.number('a whole number').int('a whole number').min(1, 'at least 1').default(10_000),
    })
    .prefault({}),
  retentionInterval: positiveDuration.default(60_000),
  encryptionKeys: z
    .array(encryptionKeySchema, 'an array of { id, key }')
    .refine((keys) => new Set(keys.map(({ id }) => id)).size === keys.length, 'ids that differ')
    .default([]),
  logger: loggerSchema.default(defaultLogger),
})
