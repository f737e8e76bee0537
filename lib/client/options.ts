import type { BackoffSettings } from './backoff.ts'
import { RetryBudget } from './retry-budget.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'

/** A call, as hooks see it. */
export interface CallInfo {
  readonly url: string
  readonly method: string
  /** Undefined where the call carries no key. */
  readonly key: string | undefined
}

/** What an attempt came to, as hooks see it. */
export interface AttemptInfo extends CallInfo {
  /** How many times the request was sent so far. */
  readonly attempts: number
  /** Of the answer, if there was one. */
  readonly status: number | undefined
  /** Why there was no answer. */
  readonly error: unknown
}

/** Which option ended the retries. */
export type GiveUpReason = 'maxAttempts' | 'timeout' | 'budget'

/** When to retry; the same for fetch, axios and ky. Times are in milliseconds. */
export interface RetryOptions {
  /** How often a request is sent at most, answers of "still in progress" not counted. Default 8. */
  maxAttempts?: number
  /** How long one attempt may take. Default 30,000. */
  attemptTimeout?: number
  /** How long the whole call may take, waiting included. Default 120,000. */
  timeout?: number
  /** The upper bound of the first delay; it doubles with each attempt. Default 200. */
  baseDelay?: number
  /** The upper bound of every delay. Default 10,000. */
  maxDelay?: number
  /** A longer Retry-After is taken for this. Default 60,000. */
  maxRetryAfter?: number
  /**
   * Limits the retries of all calls together. Default: a {@link RetryBudget} of the client's own;
   * give one to several clients of the same server, or false for none.
   */
  budget?: RetryBudget | false
  /** Before each wait for another attempt. What it throws ends the call, and is thrown to the caller. */
  onRetry?: (info: AttemptInfo & { readonly delay: number }) => unknown
  /** When the policy gives up: the caller gets the last answer, or an error. */
  onGiveUp?: (info: AttemptInfo & { readonly why: GiveUpReason }) => unknown
}

/** Which requests carry a key, and how. */
export interface KeyOptions {
  /** The methods that get a key. Default POST and PATCH. A key of the caller's own is always sent. */
  methods?: readonly string[]
  /** Makes the key of a call that brings none. Default, and if it returns undefined: a UUID. */
  key?: (call: { readonly url: string; readonly method: string }) => string | undefined
  /** The header that carries it. Default `Idempotency-Key`. */
  header?: string
  /**
   * Whether the key is sent in double quotes, as the IETF draft asks (a structured-field string).
   * Default true; false for servers that take the header as it is, such as Stripe's.
   */
  quoted?: boolean
}

export interface RetrySettings extends BackoffSettings {
  maxAttempts: number
  attemptTimeout: number
  timeout: number
  budget: RetryBudget | false
  onRetry: NonNullable<RetryOptions['onRetry']>
  onGiveUp: NonNullable<RetryOptions['onGiveUp']>
}

export interface KeySettings {
  methods: readonly string[]
  key: NonNullable<KeyOptions['key']>
  header: string
  quoted: boolean
}

/** The methods that are safe to repeat by definition (RFC 9110, section 9.2.2). */
export const IDEMPOTENT_METHODS = ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']

const none = () => undefined

/** Of every option; its type is what an option must be. */
const DEFAULTS = {
  methods: ['POST', 'PATCH'],
  key: none,
  header: 'Idempotency-Key',
  quoted: true,
  maxAttempts: 8,
  attemptTimeout: 30_000,
  timeout: 120_000,
  baseDelay: 200,
  maxDelay: 10_000,
  maxRetryAfter: 60_000,
  onRetry: none,
  onGiveUp: none,
}

/** Of the options that only fetch has. */
export const FETCH_DEFAULTS = { fetch: none, headers: none, buffer: true, persist: {} }

/** The bound of setTimeout: a longer delay would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Checks options once. By hand: a schema library alone is larger than the client may be.
 * @param more the defaults of options that only this caller has
 * @throws IdempotentFetchError `invalid-option` that names the option, its value and what is allowed
 */
export function resolveOptions(
  options: RetryOptions & KeyOptions,
  more: object = {},
): RetrySettings & KeySettings {
  const given = options as Record<string, unknown>
  const settings: Record<string, unknown> = { ...DEFAULTS, budget: new RetryBudget(), ...more }
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
      const least = /Delay|After/.test(name) ? 0 : 1
      const inRange = (value as number) >= least && (value as number) <= MAX_TIMER_MS
      check(name, inRange, `${least} to ${MAX_TIMER_MS}`)
    }
    settings[name] = value
  }
  settings.methods = (settings.methods as string[]).map((method) => method.toUpperCase())
  return settings as unknown as RetrySettings & KeySettings
}
