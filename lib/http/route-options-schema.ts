/** The zod schema of the options of `idempotency()`: what each accepts, and its default. */

import { METHODS } from 'node:http'
import { z } from 'zod'
import {
  byteSize,
  callback,
  duration,
  positiveDuration,
  timerDuration,
} from '../options/parse-options.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'

const headerName = z
  .string()
  .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, "the name of a header, like 'Idempotency-Key'")

/** The limit keeps the expiry within the dates that PostgreSQL can represent. */
const retentionPeriod = duration.refine((ms) => ms <= 100 * 365.25 * 864e5, 'at most 100 years')

const retention = z.union(
  [
    retentionPeriod.transform((completed) => ({
      completed,
      unfinished: Math.max(completed, 72 * 36e5),
    })),
    z.strictObject({
      completed: retentionPeriod.default(24 * 36e5),
      unfinished: retentionPeriod.default(72 * 36e5),
    }),
  ],
  "a duration like '24h', or { completed, unfinished }, at most 100 years",
)

/** Checked by its method, not its class: apps may implement it too. */
const transactionHost = z.custom<TransactionHost<unknown>>(
  (value) => typeof (value as TransactionHost<unknown> | null)?.transaction === 'function',
)

/** The attempts after which a recovered request is parked, if `recover` does not say. */
const DEFAULT_RECOVERY_ATTEMPTS = 10

const STATUS_URL_EXPECTED =
  "a path or http(s) URL with ':id' in it, like '/operations/:id', or a function (id, request) => string"
/** `:id` stands for the id of an execution. */
const statusUrl = z.union(
  [
    z
      .string()
      .regex(/^(\/(?!\/)|https?:\/\/)[\x21-\x7e]*$/, STATUS_URL_EXPECTED)
      .regex(/:id\b/, STATUS_URL_EXPECTED),
    callback,
  ],
  STATUS_URL_EXPECTED,
)

const METHODS_EXPECTED = "'all', or an array of methods that Node knows, like ['POST', 'PATCH']"
const method = z.string().refine((name) => METHODS.includes(name.toUpperCase()), METHODS_EXPECTED)

export const idempotencyOptions = z.strictObject({
  scope: callback.optional(),
  key: z
    .union([headerName, callback], 'the name of a header, or a function')
    .default('Idempotency-Key'),
  methods: z
    .union([z.literal('all'), z.array(method).min(1, METHODS_EXPECTED)], METHODS_EXPECTED)
    .transform((methods) =>
      methods === 'all' ? methods : new Set(methods.map((method) => method.toUpperCase())),
    )
    .default(new Set(['POST', 'PATCH'])),
  skip: callback.optional(),
  required: z.boolean('true or false').default(false),
  strict: z.boolean('true or false').default(false),
  fingerprint: callback.optional(),
  wait: timerDuration.default(5_000),
  resumable: z.boolean('true or false').optional(),
  recover: z
    .union(
      [
        z.boolean().transform((recover) => recover && { attempts: DEFAULT_RECOVERY_ATTEMPTS }),
        z.strictObject({
          attempts: z.number().int().min(2).max(1000).default(DEFAULT_RECOVERY_ATTEMPTS),
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
  timeout: positiveDuration.default(60_000),
  onStoreError: z.enum(['refuse', 'run'], "'refuse' or 'run'").default('refuse'),
  statusUrl: statusUrl.optional(),
  respondAsyncAfter: timerDuration.optional(),
})
