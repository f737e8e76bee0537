/** The options of pawl/client for retries and keys, their defaults, and the check of them. */

import type { BackoffSettings } from './backoff.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import { RetryBudget } from './retry-budget.ts'

/** Describes a call to hooks. */
export interface CallInfo {
  readonly url: string
  readonly method: string
  /** Undefined if the call has no key. */
  readonly key: string | undefined
}

/** Describes an attempt and its result to hooks. */
export interface AttemptInfo extends CallInfo {
  /** How many times the request was sent so far. */
  readonly attempts: number
  /** The status of the response; undefined if there was none. */
  readonly status: number | undefined
  /** Why there was no response; undefined if there was one. */
  readonly error: unknown
}

/** The option that ended the retries. */
export type GiveUpReason = 'maxAttempts' | 'timeout' | 'budget'

/** How to retry; the same for fetch, axios and ky. Times are in milliseconds. */
export interface RetryOptions {
  /** How often a request is sent at most; "still in progress" responses do not count. Default 8. */
  maxAttempts?: number
  /** How long one attempt may take. Default 30,000. */
  attemptTimeout?: number
  /** How long the whole call may take, delays included. Default 120,000. */
  timeout?: number
  /** The upper bound of the first delay. The bound doubles with each attempt. Default 200. */
  baseDelay?: number
  /** The upper bound of every delay. Default 10,000. */
  maxDelay?: number
  /** A longer Retry-After is shortened to this. Default 60,000. */
  maxRetryAfter?: number
  /**
   * Limits the retries of all calls together. Default: each client has a {@link RetryBudget} of its own.
   * Give the same one to several clients of a server, or false for no limit.
   */
  budget?: RetryBudget | false
  /** Is called before the delay of each retry. If it throws, the call ends with that error. */
  onRetry?: (info: AttemptInfo & { readonly delay: number }) => unknown
  /** Is called when a limit ends the retries. The caller then gets the last response, or an error. */
  onGiveUp?: (info: AttemptInfo & { readonly why: GiveUpReason }) => unknown
}

/** Which requests get a key, and how it is sent. */
export interface KeyOptions {
  /** The methods that get a key. Default POST and PATCH. A key that the caller gives is always sent. */
  methods?: readonly string[]
  /** Creates the key of a call that has none. Default, and if it returns undefined: a random UUID. */
  key?: (call: { readonly url: string; readonly method: string }) => string | undefined
  /** The header that carries the key. Default `Idempotency-Key`. */
  header?: string
  /**
   * Whether to send the key in double quotes, as the IETF draft requires (a structured-field string).
   * Default true; false for servers that use the header's value as it is, such as Stripe's.
   */
  quoted?: boolean
}

/** {@link RetryOptions} with the defaults filled in. */
export interface RetrySettings extends BackoffSettings {
  maxAttempts: number
  attemptTimeout: number
  timeout: number
  budget: RetryBudget | false
  onRetry: NonNullable<RetryOptions['onRetry']>
  onGiveUp: NonNullable<RetryOptions['onGiveUp']>
}

/** {@link KeyOptions} with the defaults filled in. */
export interface KeySettings {
  methods: readonly string[]
  key: NonNullable<KeyOptions['key']>
  header: string
  quoted: boolean
}

/** The methods that are safe to repeat by definition (RFC 9110, section 9.2.2). */
export const IDEMPOTENT_METHODS = ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']

const noop = () => undefined

/** The default of each option. An option must have the type of its default. */
const DEFAULTS = {
  methods: ['POST', 'PATCH'],
  key: noop,
  header: 'Idempotency-Key',
  quoted: true,
  maxAttempts: 8,
  attemptTimeout: 30_000,
  timeout: 120_000,
  baseDelay: 200,
  maxDelay: 10_000,
  maxRetryAfter: 60_000,
  onRetry: noop,
  onGiveUp: noop,
}

/** The defaults of the options that only `createIdempotentFetch` has. */
export const FETCH_DEFAULTS = { fetch: noop, headers: noop, buffer: true, persist: {} }

/** The longest delay of setTimeout: a timer with a longer one fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Checks the options and adds the defaults. Uses no schema library, since that alone would exceed the
 * size limit of the client.
 * @param extraDefaults the defaults of options that only this caller has
 * @throws IdempotentFetchError `invalid-option` that names the option, its value and what is allowed
 */
export function resolveOptions(
  options: RetryOptions & KeyOptions,
  extraDefaults: object = {},
): RetrySettings & KeySettings {
  const given = options as Record<string, unknown>
  const settings: Record<string, unknown> = {
    ...DEFAULTS,
    budget: new RetryBudget(),
    ...extraDefaults,
  }
  const check = (name: string, ok: boolean, allowed: string) => {
    if (ok) return
    throw new IdempotentFetchError(
      'invalid-option',
      `Option "${name}" is ${given[name]}; allowed: ${allowed}.`,
    )
  }
  for (const name in given) {
    const value = given[name]
    check(name, name in settings, `only ${Object.keys(settings).join(', ')}`)
    if (value === undefined) continue
    const type = typeof settings[name]
    check(name, typeof value === type || (name === 'budget' && value === false), type)
    if (type === 'number') {
      const min = /Delay|After/.test(name) ? 0 : 1
      const inRange = (value as number) >= min && (value as number) <= MAX_TIMER_MS
      check(name, inRange, `${min} to ${MAX_TIMER_MS}`)
    }
    settings[name] = value
  }
  settings.methods = (settings.methods as string[]).map((method) => method.toUpperCase())
  return settings as unknown as RetrySettings & KeySettings
}
