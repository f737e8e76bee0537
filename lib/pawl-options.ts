import { z } from 'zod'
import { defaultLogger, type Logger } from './options/logger.ts'
import {
  type ByteSize,
  byteSize,
  type Duration,
  longerThanZero,
  timer,
} from './options/parse-options.ts'
import type { PgPool } from './store/database/node-postgres.ts'
import type { PGliteLike } from './store/database/pglite.ts'

/** Options of {@link Pawl}. */
export interface PawlOptions {
  /**
   * The app's PostgreSQL (14 or later): a `pg.Pool`, a connection string, or a PGlite instance. For a
   * connection string Pawl opens a pool of its own, of five connections; of a given pool it uses two
   * or three under load.
   */
  database: PgPool | PGliteLike | string
  /** The schema Pawl lives in. Default `'pawl'`. */
  schema?: string
  /**
   * A stable name of this process among its peers (a pod's ordinal, a systemd unit). A process that
   * starts under it retires its predecessor at once, so that a restart need not wait for
   * `processTimeout`. Two processes must not run under one name. Default: none.
   */
  instance?: string
  /** Apply missing migrations in `start()`. Safe with many processes. Default `false`. */
  migrate?: boolean
  /** A process without a heartbeat for this long is dead. At least 1 s. Default `'15s'`. */
  processTimeout?: Duration
  /** How long a statement may take, and a request may wait for a store that is away. Default `'5s'`. */
  storeTimeout?: Duration
  /** How long `stop()` waits for what is running. Default `'10s'`. */
  drainTimeout?: Duration
  /**
   * How many workflows this process runs at a time, if it defines any; `false`: it only starts them, and
   * others run them (`npx pawl work`). Default `{ concurrency: 100 }`.
   */
  workers?: false | { concurrency?: number }
  /**
   * How much may be stored of one execution, before an error (`limit-exceeded`) says so: the `input` and
   * the `output` of a workflow, what one `step` of a request or a workflow gives (1 MiB each), and how many
   * `steps` it may record (10,000).
   */
  limits?: { input?: ByteSize; output?: ByteSize; step?: ByteSize; steps?: number }
  /** How often this process deletes what has expired. Default `'1 minute'`. */
  retentionInterval?: Duration
  /**
   * AES-256-GCM keys (32 bytes, or their base64) under which stored responses, requests and step values
   * are encrypted. The first encrypts; the others still decrypt, for rotation. Default: none.
   */
  encryptionKeys?: readonly { id: string; key: Uint8Array | string }[]
  /** Where Pawl says what it does. Default: warnings on the console, progress with `NODE_DEBUG=pawl`. */
  logger?: Logger
}

const logger = z.custom<Logger>(
  (value) =>
    typeof (value as Logger | null)?.debug === 'function' &&
    typeof (value as Logger | null)?.warn === 'function',
  { message: 'an object with debug(message, fields) and warn(message, fields)' },
)

/** By what each kind of database is used for: a pool connects, PGlite runs scripts. */
function isDatabase(value: unknown): boolean {
  if (typeof value === 'string') return value !== ''
  const { connect, exec } = (value ?? {}) as { connect?: unknown; exec?: unknown }
  return typeof connect === 'function' || typeof exec === 'function'
}

const KEY = '32 bytes, or their base64'
const encryptionKey = z.strictObject(
  {
    id: z
      .string('a string of 1 to 100 characters')
      .regex(/^[\x21-\x7e]{1,100}$/, '1 to 100 printable ASCII characters'),
    key: z.unknown().transform((value, context): Uint8Array => {
      const bytes = typeof value === 'string' ? Buffer.from(value, 'base64') : value
      if (bytes instanceof Uint8Array && bytes.length === 32) return bytes
      context.addIssue({ code: 'custom', message: KEY })
      return z.NEVER
    }),
  },
  `{ id, key }, where key is ${KEY}`,
)

/** How many workflows run in a process at a time. */
const WORKERS = 100

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
  migrate: z.boolean('true or false').default(false),
  processTimeout: timer.refine((ms) => ms >= 1000, 'at least 1 second').default(15_000),
  storeTimeout: longerThanZero.default(5_000),
  drainTimeout: timer.default(10_000),
  workers: z
    .union(
      [
        z.literal(false).transform(() => ({ concurrency: 0 })),
        z.strictObject({
          concurrency: z.number().int().min(1).max(10_000).default(WORKERS),
        }),
      ],
      'false, or { concurrency }, from 1 to 10000',
    )
    .default({ concurrency: WORKERS }),
  limits: z
    .strictObject({
      input: byteSize.default(1024 ** 2),
      output: byteSize.default(1024 ** 2),
      step: byteSize.default(1024 ** 2),
      steps: z.number('a whole number').int('a whole number').min(1, 'at least 1').default(10_000),
    })
    .prefault({}),
  retentionInterval: longerThanZero.default(60_000),
  encryptionKeys: z
    .array(encryptionKey, 'an array of { id, key }')
    .refine((keys) => new Set(keys.map(({ id }) => id)).size === keys.length, 'ids that differ')
    .default([]),
  logger: logger.default(defaultLogger),
})
