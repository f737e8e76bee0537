import { z } from 'zod'
import { callback, duration, longerThanZero } from '../options/parse-options.ts'

const schema = z.custom<z.ZodType>((value) => value instanceof z.ZodType, 'a zod schema').optional()

/** A name of something durable: it is part of keys and indexes. */
const NAME = 'a name of 1 to 200 characters'
export const name = z
  .string(NAME)
  .min(1, NAME)
  .max(200, NAME)
  .refine((text) => text.isWellFormed() && !/[\0@]/.test(text), 'a name without NUL and @')

const KEY = 'a key of 1 to 1024 characters'
export const key = z
  .string(KEY)
  .min(1, KEY)
  .max(1024, KEY)
  .refine((text) => text.isWellFormed() && !text.includes('\0'), 'a key without NUL')

const century = duration.refine((ms) => ms <= 100 * 365.25 * 864e5, 'at most 100 years')
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
        backoff: longerThanZero.default(1000),
        maxBackoff: longerThanZero.default(300_000),
      }),
    ],
    'a number of attempts, or { attempts, backoff, maxBackoff }',
  )
  .default({ attempts: 10, backoff: 1000, maxBackoff: 300_000 })

export const workflowOptions = z.strictObject({
  input: schema,
  output: schema,
  retry,
  timeout: century.refine((ms) => ms > 0, 'more than 0').optional(),
  queue: z
    .custom<{ name: string }>(
      (value) => typeof (value as { name?: unknown } | null)?.name === 'string',
      'what pawl.queue(name, options) returns',
    )
    .optional(),
  version: name.max(100, 'at most 100 characters').optional(),
  retention: century.default(7 * 864e5),
})

export const startOptions = z.strictObject({
  key: key.optional(),
  delay: century.default(0),
  priority: z
    .number('a whole number from 0 to 9')
    .int('a whole number')
    .min(0, 'at least 0')
    .max(9, 'at most 9')
    .default(0),
  queueKey: key.optional(),
  tx: z.unknown().optional(),
})

const STATE_NAME = 'a name of 1 to 200 characters'
export const stateName = z.strictObject({
  name: z
    .string(STATE_NAME)
    .min(1, STATE_NAME)
    .max(200, STATE_NAME)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'a name without NUL'),
})

export const objectKey = z.strictObject({ key })

const handlers = z.record(name, callback, 'an object of functions')
export const objectOptions = z.strictObject({
  handlers,
  readers: handlers.default({}),
  retry: z.unknown().optional(),
  timeout: z.unknown().optional(),
  version: z.unknown().optional(),
  retention: z.unknown().optional(),
})

export const resultOptions = z.strictObject({ timeout: duration.optional() })

export const sleepOptions = z.strictObject({ ms: century })

export const signalOptions = z.strictObject({ timeout: century.optional(), schema })

const count = (most: number) =>
  z.number('a whole number').int('a whole number').min(1, 'at least 1').max(most, `at most ${most}`)

export const queueOptions: z.ZodType<QueueSettings> = z.strictObject({
  concurrency: count(100_000).optional(),
  concurrencyPerKey: count(1000).optional(),
  rateLimit: z
    .strictObject({ limit: count(100_000), period: longerThanZero }, '{ limit, period }')
    .optional(),
  maxDepth: count(100_000_000).optional(),
})

/** The options of a queue, resolved. */
export interface QueueSettings {
  concurrency?: number | undefined
  concurrencyPerKey?: number | undefined
  /** At most so many begin within a period of so many ms. */
  rateLimit?: { limit: number; period: number } | undefined
  maxDepth?: number | undefined
}

export { callback }
