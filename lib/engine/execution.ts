/** The interface of an execution: what handler code can do through `req.execution` and its like. */

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

/** The execution that handler code runs in. */
export interface Execution {
  /** A UUID, derived from scope and key: the same in every attempt and every process. */
  readonly id: string
  /** The namespace of the key; empty if the app sets none. */
  readonly scope: string
  /** The idempotency key, unquoted. */
  readonly key: string
  /** The number of this attempt, from 1. */
  readonly attempt: number
  /**
   * Whether a worker runs this attempt because the process of the previous one has died: there is no client
   * and there are no credentials. The recorded `scope` can be trusted.
   */
  readonly recovering: boolean
  /** Fires when this attempt must stop: its time is up, another attempt is current, or the app shuts down. */
  readonly abortSignal: AbortSignal

  /**
   * Runs `fn` once and records the value that it returns; every later attempt gets the recorded value and
   * does not run `fn`. If `fn` throws, nothing is recorded and the next attempt runs it again; but a
   * TerminalError is recorded.
   *
   * `fn` may run more than once if its process dies before the result is recorded, with the same
   * `idempotencyKey` for the API it calls (or see `atMostOnce`).
   *
   * ```ts
   * const charge = await req.execution.step('charge card', ({ idempotencyKey }) =>
   *   stripe.charges.create(order, { idempotencyKey }))
   * ```
   *
   * @param name identifies the step; if used again (in a loop), the calls are numbered in their order
   * @throws what `fn` throws; PawlError `superseded`, `step-nested`, `step-timed-out`,
   * `value-unkeepable`, `value-invalid`, `invalid-option`; StepInterruptedError; DivergenceError
   */
  readonly step: RunStep

  /**
   * Runs `fn` in a database transaction. Its writes and the journal entry commit together or not at all, so
   * they take effect exactly once. After a serialization failure or deadlock `fn` runs again, up to five
   * times in all; it should do nothing but write through `tx`.
   *
   * ```ts
   * const order = await req.execution.transaction('record order', (tx) =>
   *   tx.query('insert into orders … returning *'))
   * ```
   *
   * `fn` gets a client of Pawl's pool (do not release it), or the transaction that the `on` option opens.
   * The options may also come before `fn`.
   *
   * @throws as `step` does
   */
  readonly transaction: RunTransaction

  /**
   * The transaction of the whole request, on routes with `transaction: true`: a client of the pool, or
   * the transaction that the route's `transaction.on` opens.
   * @throws PawlError `no-transaction` elsewhere
   */
  // biome-ignore lint/suspicious/noExplicitAny: the route's option decides what it is
  readonly tx: any

  /** The time of the last recorded step; before the first step, of the claim. The same in every attempt. */
  now(): Date
  /** A number from 0 up to 1: the same in every attempt, different for each call. Not for secrets. */
  random(): number
  /** A UUID: the same in every attempt, different for each call. Not for secrets. */
  uuid(): string
}
