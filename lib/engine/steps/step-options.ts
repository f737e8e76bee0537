/** The options of steps and transactions: their types, and how they are validated. */

import { z } from 'zod'
import {
  callback,
  type Duration,
  duration,
  parseOptions,
  positiveDuration,
} from '../../options/parse-options.ts'
import type { Backoff } from '../../store/database/backoff.ts'
import type { IsolationLevel, TransactionHost } from '../../store/database/transaction-host.ts'

/** The argument of a step's function. */
export interface StepContext {
  /**
   * A UUID to send to the API that the step calls: the same in every attempt, different for every step, so
   * that the API can tell a retry from a new call.
   */
  readonly idempotencyKey: string
  /** Which try of the step this is within this attempt, from 1. */
  readonly attempt: number
  /** Fires when the step's timeout has passed, or its attempt is no longer the current one. */
  readonly signal: AbortSignal
}

/** How a step that throws is retried before the handler sees the error. */
export interface RetryOptions {
  /** The largest number of tries, the first one included. Default 3. */
  attempts?: number
  /** The pause after the first failure; it doubles with each failure, with full jitter. Default `'200ms'`. */
  backoff?: Duration
  /** The longest pause. Default `'10s'`. */
  maxBackoff?: Duration
  /** Whether an error is worth another try. Default: all but TerminalError. */
  retryIf?: (error: unknown) => boolean
}

/** Options that steps and transactions share. */
export interface CommonStepOptions<T> {
  /**
   * A zod schema that parses the returned value; its result is recorded and returned. It must accept its own
   * results, since recorded values are parsed again. Default: any value.
   */
  schema?: z.ZodType<T>
  /**
   * Undoes the step. When the handler gives up (a final answer of 400 or more), the compensations of
   * recorded steps run in reverse order, each recorded itself, before that answer leaves; each is tried
   * three times, and the next attempt continues them after a crash. Default: none.
   */
  compensate?: (output: T, context: StepContext) => unknown
}

/** Options of a step. */
export interface StepOptions<T> extends CommonStepOptions<T> {
  /** Retries within this attempt: the largest number of tries, or all options. Default: no retry. */
  retry?: number | RetryOptions
  /** How long one try may take until its signal fires and it fails. Default: no limit. */
  timeout?: Duration
  /**
   * Records the intent before the step runs. If a later attempt finds the step interrupted, it does not run
   * it again but throws StepInterruptedError. Default `false`: an interrupted step runs again, with the
   * same idempotencyKey.
   */
  atMostOnce?: boolean
}

/** Options of a transaction. */
export interface TransactionOptions<T, Tx> extends CommonStepOptions<T> {
  /** The isolation level. Default: the database's, usually read committed. */
  isolation?: IsolationLevel
  /** Opens the transaction: an ORM's adapter, such as from `pawl/drizzle`. Default: Pawl's pool. */
  on?: TransactionHost<Tx>
}

/** A step's options with defaults filled in. */
export interface ResolvedStep {
  schema: z.ZodType | undefined
  compensate: ((output: never, context: StepContext) => unknown) | undefined
  retry: { attempts: number; backoff: Backoff; retryIf: (error: unknown) => boolean }
  timeoutMs: number | undefined
  atMostOnce: boolean
}

const schema = z.custom<z.ZodType>((value) => value instanceof z.ZodType, 'a zod schema').optional()
const compensate = callback.optional()
const attempts = z
  .number('a whole number')
  .int('a whole number')
  .min(1, 'at least 1')
  .max(1000, 'at most 1000')

const stepOptions = z
  .strictObject({
    schema,
    compensate,
    retry: z
      .union(
        [
          attempts,
          z.strictObject({
            attempts: attempts.default(3),
            backoff: duration.default(200),
            maxBackoff: duration.default(10_000),
            retryIf: callback.optional(),
          }),
        ],
        'a number of attempts, or { attempts, backoff, maxBackoff, retryIf }',
      )
      .optional(),
    timeout: positiveDuration.optional(),
    atMostOnce: z.boolean('true or false').default(false),
  })
  .refine(({ atMostOnce, retry }) => !(atMostOnce && retry), {
    path: ['atMostOnce'],
    message: 'true without retry, since a retry is a second run',
  })

const transactionOptions = z.strictObject({
  schema,
  compensate,
  isolation: z
    .enum(
      ['read committed', 'repeatable read', 'serializable'],
      "'read committed', 'repeatable read' or 'serializable'",
    )
    .optional(),
  on: z
    .custom<TransactionHost<unknown>>(
      (value) => typeof (value as TransactionHost<unknown> | null)?.transaction === 'function',
      "what an adapter like drizzleTransactions(db) of 'pawl/drizzle' returns",
    )
    .optional(),
})

const DEFAULTS: ResolvedStep = {
  schema: undefined,
  compensate: undefined,
  retry: { attempts: 1, backoff: { firstMs: 200, maxMs: 10_000 }, retryIf: () => true },
  timeoutMs: undefined,
  atMostOnce: false,
}

/** Validates a step's options and fills in defaults. @throws PawlError `invalid-option` */
export function resolveStep<T>(name: string, options: StepOptions<T> | undefined): ResolvedStep {
  if (options === undefined) return DEFAULTS
  const { retry, timeout, ...parsed } = parseOptions(stepOptions, options, `step "${name}"`)
  const { attempts, backoff, maxBackoff, retryIf } =
    typeof retry === 'object'
      ? retry
      : { attempts: retry ?? 1, backoff: 200, maxBackoff: 10_000, retryIf: undefined }
  return {
    schema: parsed.schema,
    compensate: parsed.compensate as ResolvedStep['compensate'],
    retry: {
      attempts,
      backoff: { firstMs: backoff, maxMs: maxBackoff },
      retryIf: (retryIf as ((error: unknown) => boolean) | undefined) ?? (() => true),
    },
    timeoutMs: timeout,
    atMostOnce: parsed.atMostOnce,
  }
}

/** Validates a transaction's options. @throws PawlError `invalid-option` */
export function resolveTransaction<T, Tx>(
  name: string,
  options: TransactionOptions<T, Tx> | undefined,
) {
  return parseOptions(transactionOptions, options, `transaction "${name}"`)
}
