import { METHODS } from 'node:http'
import { z } from 'zod'
import { defaultLogger, type Logger } from './options/logger.ts'
import { byteSize, callback, duration, longerThanZero, timer } from './options/parse-options.ts'
import type { TransactionHost } from './store/database/transaction-host.ts'

const headerName = z
  .string()
  .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, "the name of a header, like 'Idempotency-Key'")

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

/** Far beyond any use; much longer, and expiry would be no date that PostgreSQL knows. */
const age = duration.refine((ms) => ms <= 100 * 365.25 * 864e5, 'at most 100 years')

const retention = z.union(
  [
    age.transform((completed) => ({ completed, unfinished: Math.max(completed, 72 * 36e5) })),
    z.strictObject({
      completed: age.default(24 * 36e5),
      unfinished: age.default(72 * 36e5),
    }),
  ],
  "a duration like '24h', or { completed, unfinished }, at most 100 years",
)

/** By what it does: the adapters of ORMs make them, and so may an app. */
const transactionHost = z.custom<TransactionHost<unknown>>(
  (value) => typeof (value as TransactionHost<unknown> | null)?.transaction === 'function',
)

/** How often a request runs before workers give up. */
const RECOVERY_ATTEMPTS = 10

const STATUS_URL =
  "a path or http(s) URL with ':id' in it, like '/operations/:id', or a function (id, request) => string"
/** Where `:id` stands for the id of an execution. */
const statusUrl = z.union(
  [
    z
      .string()
      .regex(/^(\/(?!\/)|https?:\/\/)[\x21-\x7e]*$/, STATUS_URL)
      .regex(/:id\b/, STATUS_URL),
    callback,
  ],
  STATUS_URL,
)

const LIST = "'all', or an array of methods that Node knows, like ['POST', 'PATCH']"
const method = z.string().refine((name) => METHODS.includes(name.toUpperCase()), LIST)

export const idempotencyOptions = z.strictObject({
  scope: callback.optional(),
  key: z
    .union([headerName, callback], 'the name of a header, or a function')
    .default('Idempotency-Key'),
  methods: z
    .union([z.literal('all'), z.array(method).min(1, LIST)], LIST)
    .transform((methods) =>
      methods === 'all' ? methods : new Set(methods.map((method) => method.toUpperCase())),
    )
    .default(new Set(['POST', 'PATCH'])),
  skip: callback.optional(),
  required: z.boolean('true or false').default(false),
  strict: z.boolean('true or false').default(false),
  fingerprint: callback.optional(),
  wait: timer.default(5_000),
  resumable: z.boolean('true or false').optional(),
  recover: z
    .union(
      [
        z.boolean().transform((recover) => recover && { attempts: RECOVERY_ATTEMPTS }),
        z.strictObject({
          attempts: z.number().int().min(2).max(1000).default(RECOVERY_ATTEMPTS),
        }),
      ],
      'true, false, or { attempts }, from 2 to 1000',
    )
    .default(false),
  transaction: z
    .union(
      [z.boolean(), z.strictObject({ on: transactionHost })],
      "true, false, or { on }, where on is what an adapter like drizzleTransactions(db) of 'pawl/drizzle' returns",
    )
    .default(false),
  retention: retention.default({ completed: 24 * 36e5, unfinished: 72 * 36e5 }),
  maxBody: byteSize.refine((n) => n <= 256 * 1024 ** 2, 'at most 256mb').default(1024 ** 2),
  maxRequestBody: byteSize.refine((n) => n <= 1024 ** 3, 'at most 1gb').default(10 * 1024 ** 2),
  storedHeaders: z
    .union([z.array(headerName), callback], 'an array of header names, or a function')
    .optional(),
  timeout: longerThanZero.default(60_000),
  onStoreError: z.enum(['refuse', 'run'], "'refuse' or 'run'").default('refuse'),
  statusUrl: statusUrl.optional(),
  respondAsyncAfter: timer.optional(),
})

export const statusOptions = z.strictObject({
  authorize: z.custom<(...args: never[]) => unknown>((value) => typeof value === 'function', {
    message:
      'a function (request, execution) => boolean. It has no default: ids are derived from scope and key and can be guessed, so it must say whose execution this is',
  }),
  maxWait: timer.default(30_000),
  heartbeat: longerThanZero.default(15_000),
})
