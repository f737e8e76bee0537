import type { z } from 'zod'
import type { PoolClient } from '../store/database/transaction-host.ts'
import type { StepContext, StepOptions, TransactionOptions } from './steps/step-options.ts'

/** Runs a step; see {@link Execution.step}. */
export interface RunStep {
  <T>(
    name: string,
    fn: (context: StepContext) => T,
    options?: StepOptions<Awaited<T>>,
  ): Promise<Awaited<T>>
  <T>(
    name: string,
    fn: (context: StepContext) => unknown,
    options: StepOptions<T> & { schema: z.ZodType<T> },
  ): Promise<T>
}

/** Runs a transaction; see {@link Execution.transaction}. */
export interface RunTransaction {
  <T, Tx = PoolClient>(
    name: string,
    fn: (tx: Tx) => T,
    options?: TransactionOptions<Awaited<T>, Tx>,
  ): Promise<Awaited<T>>
  <T, Tx = PoolClient>(
    name: string,
    options: TransactionOptions<Awaited<T>, Tx>,
    fn: (tx: Tx) => T,
  ): Promise<Awaited<T>>
}

/** What handler code holds of the execution it runs in. */
export interface Execution {
  /** Derived from scope and key: the same for every attempt and every process. A UUID. */
  readonly id: string
  /** The namespace of the key; empty if the app names none. */
  readonly scope: string
  /** The idempotency key, unquoted. */
  readonly key: string
  /** The number of this try at running the execution, from 1. */
  readonly attempt: number
  /**
   * Whether a worker runs this attempt, because the process that ran the one before has died: there is
   * no client, and no credentials. The recorded `scope` can be trusted.
   */
  readonly recovering: boolean
  /** Fires when this attempt is no longer the current one: its time is up, or the app stops. */
  readonly abortSignal: AbortSignal

  /**
   * Runs `fn` once and records what it returns; every later attempt gets that and does not run it. If it
   * throws, nothing is recorded and the next attempt runs it again; a TerminalError is recorded.
   *
   * `fn` may run more than once if its process dies before the result is recorded, with the same
   * `idempotencyKey` for the API it calls (or see `atMostOnce`).
   *
   * ```ts
   * const charge = await req.execution.step('charge card', ({ idempotencyKey }) =>
   *   stripe.charges.create(order, { idempotencyKey }))
   * ```
   *
   * @param name identifies the step; used again (in a loop), it is counted in the order of the calls
   * @throws what `fn` throws; PawlError `superseded`, `step-nested`, `step-timed-out`,
   * `value-unkeepable`, `value-invalid`, `invalid-option`; StepInterruptedError; DivergenceError
   */
  readonly step: RunStep

  /**
   * Runs `fn` in a transaction of the database; what it writes and the journal's entry commit together
   * or not at all, so they take effect exactly once. Serialization failures and deadlocks run `fn` again,
   * up to five times; it should do nothing but write through `tx`.
   *
   * ```ts
   * const order = await req.execution.transaction('record order', (tx) =>
   *   tx.query('insert into orders … returning *'))
   * ```
   *
   * `fn` gets a client of the pool that Pawl was given (do not release it), or what the `on` option
   * opens. The options may also come before `fn`.
   *
   * @throws as `step` does
   */
  readonly transaction: RunTransaction

  /**
   * The transaction of the whole request, on routes with `transaction: true`: a client of the pool, or
   * what the route's `transaction.on` opens.
   * @throws PawlError `no-transaction` elsewhere
   */
  // biome-ignore lint/suspicious/noExplicitAny: the route's option decides what it is
  readonly tx: any

  /** The time of the last recorded step, at first of the claim: the same in every attempt. */
  now(): Date
  /** A number from 0 up to 1: the same in every attempt, another for each call. Not for secrets. */
  random(): number
  /** A UUID: the same in every attempt, another for each call. Not for secrets. */
  uuid(): string
}
