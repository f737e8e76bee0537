import { METHODS } from 'node:http'
import { z } from 'zod'
import { PawlError } from './errors.ts'
import { defaultLogger, type Logger } from './logger.ts'

/** Milliseconds, or a number with a unit: `'500ms'`, `'5s'`, `'2 minutes'`, `'24h'`, `'3 days'`. */
export type Duration = number | string

/** Bytes, or a number with a unit of 1024: `'512kb'`, `'1mb'`. */
export type ByteSize = number | string

const DURATION_UNITS: Record<string, number> = {
  ms: 1,
  millisecond: 1,
  s: 1e3,
  sec: 1e3,
  second: 1e3,
  m: 6e4,
  min: 6e4,
  minute: 6e4,
  h: 36e5,
  hour: 36e5,
  d: 864e5,
  day: 864e5,
  w: 6048e5,
  week: 6048e5,
}
const SIZE_UNITS: Record<string, number> = { b: 1, byte: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3 }

const duration = quantity(
  DURATION_UNITS,
  "milliseconds, or a string like '500ms', '5s', '24h', '3 days'",
)
const byteSize = quantity(SIZE_UNITS, "bytes, or a string like '512kb', '1mb'")

function quantity(units: Record<string, number>, allowed: string) {
  const parse = (value: unknown): number | undefined => {
    if (typeof value === 'number') return value
    if (typeof value !== 'string') return undefined
    const match = /^(\d+(?:\.\d+)?) ?([a-z]+)$/i.exec(value)
    if (!match) return undefined
    const name = match[2]!.toLowerCase()
    const unit = units[name] ?? (name.length > 3 ? units[name.replace(/s$/, '')] : undefined)
    return unit && Number(match[1]) * unit
  }
  return z.unknown().transform((value, context) => {
    const result = parse(value)
    // The largest safe delay of a timer, and far beyond any sensible size.
    if (result !== undefined && Number.isFinite(result) && result >= 0) return Math.round(result)
    context.addIssue({ code: 'custom', message: allowed })
    return z.NEVER
  })
}

/** The bound of setTimeout: a longer delay would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1
const timer = duration.refine((ms) => ms <= MAX_TIMER_MS, 'at most 24 days')
const longerThanZero = timer.refine((ms) => ms > 0, 'more than 0')

const callback = z.custom<(...args: never[]) => unknown>((value) => typeof value === 'function', {
  message: 'a function',
})

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
  retentionInterval: longerThanZero.default(60_000),
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
  retention: retention.default({ completed: 24 * 36e5, unfinished: 72 * 36e5 }),
  maxBody: byteSize.refine((n) => n <= 256 * 1024 ** 2, 'at most 256mb').default(1024 ** 2),
  maxRequestBody: byteSize.refine((n) => n <= 1024 ** 3, 'at most 1gb').default(10 * 1024 ** 2),
  storedHeaders: z
    .union([z.array(headerName), callback], 'an array of header names, or a function')
    .optional(),
  timeout: longerThanZero.default(60_000),
  onStoreError: z.enum(['refuse', 'run'], "'refuse' or 'run'").default('refuse'),
})

/**
 * Parses options once, at the edge.
 * @param what whose options these are, for the message: `new Pawl()`
 * @throws PawlError `invalid-option` that names each wrong option, its value and what is allowed
 */
export function parseOptions<T extends z.ZodType>(
  schema: T,
  input: unknown,
  what: string,
): z.output<T> {
  const result = schema.safeParse(input ?? {})
  if (result.success) return result.data
  const complaints = result.error.issues.map((issue) => {
    const path = issue.path.join('.')
    const value = issue.path.reduce<unknown>((at, name) => (at as never)?.[name], input ?? {})
    if (issue.code === 'unrecognized_keys') {
      const names = issue.keys.map((key) => `"${key}"`).join(', ')
      if (path) return `Option "${path}" is ${show(value)}; there is no ${names} in it`
      const known = schema instanceof z.ZodObject ? Object.keys(schema.shape).join(', ') : ''
      return `There is no option ${names}; there are: ${known}`
    }
    if (!path) return `the options are ${show(input)}; allowed: an object`
    return `Option "${path}" is ${show(value)}; allowed: ${issue.message}`
  })
  throw new PawlError(
    'invalid-option',
    `${what}: ${complaints.join('. ')}.`,
    'See the README, Options.',
  )
}

function show(value: unknown): string {
  if (value === undefined) return 'missing'
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number') return String(value) // NaN is null in JSON.
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return String(value)
  }
}
