/** Parses and checks options, and provides the schemas that several options share (durations, sizes). */

import { z } from 'zod'
import { PawlError } from '../errors/index.ts'

/** Milliseconds, or a number with a unit as a string: `'500ms'`, `'5s'`, `'2 minutes'`, `'24h'`, `'3 days'`. */
export type Duration = number | string

/** Bytes, or a number with a unit as a string (1 kb is 1024 bytes): `'512kb'`, `'1mb'`. */
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

/** Parses a {@link Duration} to whole milliseconds. */
export const duration = quantitySchema(
  DURATION_UNITS,
  "milliseconds, or a string like '500ms', '5s', '24h', '3 days'",
)
/** Parses a {@link ByteSize} to whole bytes. */
export const byteSize = quantitySchema(SIZE_UNITS, "bytes, or a string like '512kb', '1mb'")

/** A schema for a number that is not negative, or a string of such a number and a unit. */
function quantitySchema(units: Record<string, number>, allowed: string) {
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
    if (result !== undefined && Number.isFinite(result) && result >= 0) return Math.round(result)
    context.addIssue({ code: 'custom', message: allowed })
    return z.NEVER
  })
}

/** The longest delay of setTimeout: a timer with a longer one fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1
/** A duration that setTimeout can wait, in milliseconds. */
export const timerDuration = duration.refine((ms) => ms <= MAX_TIMER_MS, 'at most 24 days')
export const positiveDuration = timerDuration.refine((ms) => ms > 0, 'more than 0')

export const callback = z.custom<(...args: never[]) => unknown>(
  (value) => typeof value === 'function',
  {
    message: 'a function',
  },
)

/**
 * Parses the options that an app gives, and fills in the defaults.
 * @param target the function that has the options, for the message: `new Pawl()`
 * @throws PawlError `invalid-option` that names each wrong option, its value and what is allowed
 */
export function parseOptions<T extends z.ZodType>(
  schema: T,
  input: unknown,
  target: string,
): z.output<T> {
  const result = schema.safeParse(input ?? {})
  if (result.success) return result.data
  const problems = result.error.issues.map((issue) => {
    const path = issue.path.join('.')
    const value = issue.path.reduce<unknown>(
      (object, name) => (object as never)?.[name],
      input ?? {},
    )
    const shown = SECRET_OPTIONS.test(path) ? 'not shown' : formatValue(value)
    if (issue.code === 'unrecognized_keys') {
      const names = issue.keys.map((key) => `"${key}"`).join(', ')
      if (path) return `Option "${path}" is ${shown}; there is no ${names} in it`
      const known = schema instanceof z.ZodObject ? Object.keys(schema.shape).join(', ') : ''
      return `There is no option ${names}; there are: ${known}`
    }
    if (!path) return `the options are ${formatValue(input)}; allowed: an object`
    return `Option "${path}" is ${shown}; allowed: ${issue.message}`
  })
  throw new PawlError(
    'invalid-option',
    `${target}: ${problems.join('. ')}.`,
    'See the README, Options.',
  )
}

/** The paths of options that contain secrets, which messages must not show. */
const SECRET_OPTIONS = /^encryptionKeys\b/

function formatValue(value: unknown): string {
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
