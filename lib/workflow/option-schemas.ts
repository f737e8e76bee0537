/** The zod schemas that validate the options of workflows, starts, objects, signals and queues. */

import { z } from 'zod'
import { callback, duration, positiveDuration } from '../options/parse-options.ts'

const schema = z.custom<z.ZodType>((value) => value instanceof z.ZodType, 'a zod schema').optional()

const NAME_RULE = 'a name of 1 to 200 characters'
/** The name of a workflow, object, queue or schedule. It becomes part of keys and indexes in the database. */
export const nameSchema = z
  .string(NAME_RULE)
  .min(1, NAME_RULE)
  .max(200, NAME_RULE)
  .refine((text) => text.isWellFormed() && !/[\0@]/.test(text), 'a name without NUL and @')

const KEY_RULE = 'a key of 1 to 1024 characters'
export const keySchema = z
  .string(KEY_RULE)
  .min(1, KEY_RULE)
  .max(1024, KEY_RULE)
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'a key without NUL')

const atMostACentury = duration.refine((ms) => ms <= 100 * 365.25 * 864e5, 'at most 100 years')
const attempts = z
  .number('a whole number from 1 to 1000')
  .int('a whole number')
  .min(1, 'at least 1')
  .max(1000, 'at most 1000')

const retry = z
  .union(
    [
      attempts.transform((attempts) => ({ attempts, backoff: 1000, maxBackoff: 300_000 })),
      z.strictObject({
        attempts: attempts.default(10),
        backoff: positiveDuration.default(1000),
        maxBackoff: positiveDuration.default(300_000),
      }),
    ],
    'a number of attempts, or { attempts, backoff, maxBackoff }',
  )
  .default({ attempts: 10, backoff: 1000, maxBackoff: 300_000 })

export const workflowOptions = z.strictObject({
  input: schema,
  output: schema,
  retry,
  timeout: atMostACentury.refine((ms) => ms > 0, 'more than 0').optional(),
  queue: z
    .custom<{ name: string }>(
      (value) => typeof (value as { name?: unknown } | null)?.name === 'string',
      'what pawl.queue(name, options) returns',
    )
    .optional(),
  version: nameSchema.max(100, 'at most 100 characters').optional(),
  retention: atMostACentury.default(7 * 864e5),
})

export const startOptions = z.strictObject({
  key: keySchema.optional(),
  delay: atMostACentury.default(0),
  priority: z
    .number('a whole number from 0 to 9')
    .int('a whole number')
    .min(0, 'at least 0')
    .max(9, 'at most 9')
    .default(0),
  queueKey: keySchema.optional(),
  ignoreResult: z.boolean('true or false').default(false),
  tx: z.unknown().optional(),
})

const STATE_NAME_RULE = 'a name of 1 to 200 characters'
export const stateNameSchema = z.strictObject({
  name: z
    .string(STATE_NAME_RULE)
    .min(1, STATE_NAME_RULE)
    .max(200, STATE_NAME_RULE)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'a name without NUL'),
})

export const objectKey = z.strictObject({ key: keySchema })

const handlers = z.record(nameSchema, callback, 'an object of functions')
export const objectOptions = z.strictObject({
  handlers,
  readers: handlers.default({}),
  retry: z.unknown().optional(),
  timeout: z.unknown().optional(),
  version: z.unknown().optional(),
  retention: z.unknown().optional(),
})

export const resultOptions = z.strictObject({ timeout: duration.optional() })

export const sleepOptions = z.strictObject({ ms: atMostACentury })

export const signalOptions = z.strictObject({ timeout: atMostACentury.optional(), schema })

const countUpTo = (most: number) =>
  z.number('a whole number').int('a whole number').min(1, 'at least 1').max(most, `at most ${most}`)

export const queueOptions: z.ZodType<QueueSettings> = z.strictObject({
  concurrency: countUpTo(100_000).optional(),
  concurrencyPerKey: countUpTo(1000).optional(),
  rateLimit: z
    .strictObject({ limit: countUpTo(100_000), period: positiveDuration }, '{ limit, period }')
    .optional(),
  maxDepth: countUpTo(100_000_000).optional(),
})

/** The validated options of a queue. */
export interface QueueSettings {
  concurrency?: number | undefined
  concurrencyPerKey?: number | undefined
  /** At most `limit` executions start within a period, given in ms. */
  rateLimit?: { limit: number; period: number } | undefined
  maxDepth?: number | undefined
}
