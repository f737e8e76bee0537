/** The object through which handler code runs the steps and transactions of its execution. */

import { hash } from 'node:crypto'
import { inspect } from 'node:util'
import { PawlError } from '../errors/index.ts'
import type { StepId, StepKind, StepStore } from '../store/step-store.ts'
import { currentStep, type DrawCounts } from './current-execution.ts'
import type { RunStep, RunTransaction } from './execution.ts'
import { derivedUuid } from './execution-id.ts'
import type { Journal } from './journal/journal.ts'
import type { Compensation, CompensationLog } from './steps/compensation.ts'
import { runStep, type StepExecution } from './steps/step.ts'
import {
  resolveStep,
  resolveTransaction,
  type StepContext,
  type StepOptions,
  type TransactionOptions,
} from './steps/step-options.ts'
import { runTransaction } from './steps/transaction.ts'

/** The longest step name in characters; names are part of a primary key, whose index limits their size. */
const MAX_NAME = 255

/** The values and collaborators of a running execution, given by its attempt. */
export interface ExecutionDependencies {
  id: string
  scope: string
  key: string
  attempt: number
  recovering: boolean
  /** Identifies the current execution under this key; a later one under the same key has another value. */
  incarnation: string
  journal: Journal
  steps: StepStore
  compensationLog: CompensationLog
  /** The request's transaction and whether it blocks steps; undefined if the request is not a transaction. */
  requestTransaction: () => { tx: unknown; blocks: boolean } | undefined
  /** Creates the abort signal on first use, since few handlers use it. */
  signal: () => AbortSignal
}

/** The execution object of an attempt that this process runs. */
export class RunningExecution implements StepExecution {
  readonly id: string
  readonly scope: string
  readonly key: string
  readonly attempt: number
  readonly recovering: boolean
  /** Executions that this attempt has created. Undefined until there is one, since few requests start any. */
  #createdIds: Set<string> | undefined
  readonly #dependencies: ExecutionDependencies
  /** The random values that the handler has drawn outside of steps. */
  readonly #draws: DrawCounts = { randoms: 0, uuids: 0 }

  constructor(dependencies: ExecutionDependencies) {
    this.id = dependencies.id
    this.scope = dependencies.scope
    this.key = dependencies.key
    this.attempt = dependencies.attempt
    this.recovering = dependencies.recovering
    this.#dependencies = dependencies
  }

  /** A getter, not an own property, so that spreading the object or JSON.stringify leaves it out. */
  protected get dependencies(): ExecutionDependencies {
    return this.#dependencies
  }

  /** Identifies the current execution under its id; a later one under the same key has another value. */
  get incarnation(): string {
    return this.dependencies.incarnation
  }

  /** Notes that this attempt has created an execution whose outcome is kept for this one. */
  noteCreated(id: string): void {
    this.#createdIds ??= new Set()
    this.#createdIds.add(id)
  }

  /** Whether this attempt has created that execution, so that its outcome is kept for this one. */
  hasCreated(id: string): boolean {
    return this.#createdIds?.has(id) ?? false
  }

  get abortSignal(): AbortSignal {
    return this.dependencies.signal()
  }

  get tx(): unknown {
    const transaction = this.dependencies.requestTransaction()
    if (transaction) return transaction.tx
    throw new PawlError(
      'no-transaction',
      'This request is not run as a transaction, so it has no execution.tx.',
      'Give the route transaction: true, or use execution.transaction(name, fn).',
    )
  }

  /** The request's transaction; undefined if the request is not a transaction. */
  get requestTransaction(): unknown {
    return this.dependencies.requestTransaction()?.tx
  }

  step: RunStep = async <T>(
    name: string,
    fn: (context: StepContext) => unknown,
    options?: StepOptions<T>,
  ): Promise<T> => {
    const { journal } = this.dependencies
    this.validateCall(name, fn, 'step')
    if (this.dependencies.requestTransaction()?.blocks) {
      throw new PawlError(
        'step-nested',
        `Step "${name}" was started in a request that is a transaction and holds the only connection of the pool.`,
        'Give the pool more connections, or write through execution.tx.',
      )
    }
    const resolved = resolveStep(name, options)
    const call = journal.call(name, 'step')
    const running = runStep(this, journal, call, this.idempotencyKeyOf(call), fn, resolved)
    return this.#noted(
      this.dependencies.compensationLog.track(call, resolved.compensate, running),
    ) as Promise<T>
  }

  transaction: RunTransaction = async <T, Tx>(
    name: string,
    ...rest: TransactionArguments<T, Tx>
  ): Promise<T> => {
    const { fn, options } = parseTransactionArguments(...rest)
    const { journal, steps } = this.dependencies
    this.validateCall(name, fn, 'transaction')
    if (this.dependencies.requestTransaction()) {
      throw new PawlError(
        'step-nested',
        `Transaction "${name}" was started in a request that is a transaction itself.`,
        'Write through execution.tx, which commits together with the answer.',
      )
    }
    const resolved = resolveTransaction(name, options)
    const call = journal.call(name, 'transaction')
    const running = runTransaction(this, journal, steps, call, fn, resolved)
    const { compensate } = resolved
    const noted = this.dependencies.compensationLog.track(
      call,
      compensate as Compensation | undefined,
      running,
    )
    return this.#noted(noted) as Promise<T>
  }

  /** Runs a function of Pawl's own once and records its result as an entry of the given kind. */
  async recordOnce<T>(
    kind: StepKind,
    name: string,
    fn: (context: StepContext) => Promise<T>,
  ): Promise<T> {
    this.validateCall(name, fn, kind)
    const call = this.dependencies.journal.call(name, kind)
    const { journal } = this.dependencies
    const running = runStep(
      this,
      journal,
      call,
      this.idempotencyKeyOf(call),
      fn,
      resolveStep(name, undefined),
    )
    return this.#noted(running) as Promise<T>
  }

  #noted<T>(running: Promise<T>): Promise<T> {
    const { journal } = this.dependencies
    const noted = running.catch((error) => {
      journal.noteError(error)
      throw error
    })
    return this.trackActive(noted)
  }

  /** True for requests, which cannot be parked: their answer is stored. */
  get unkeepableIsFinal(): boolean {
    return true
  }

  /** Counts a running step, so that the execution is not suspended while it runs; here, does nothing. */
  protected trackActive<T>(running: Promise<T>): Promise<T> {
    return running
  }

  now(): Date {
    return new Date(Number(BigInt(this.dependencies.journal.now) / 1000n))
  }

  random(): number {
    const bits = hash(
      'sha256',
      this.#seed((draws) => `random ${++draws.randoms}`),
      'buffer',
    )
    // The 53 bits of precision that a number has.
    return Number(bits.readBigUInt64BE() >> 11n) / 2 ** 53
  }

  uuid(): string {
    return derivedUuid(this.#seed((draws) => `uuid ${++draws.uuids}`))
  }

  /**
   * Returns the text from which a random value or UUID is derived. Each step counts its draws apart: it does
   * not run again in later attempts, and so must not change the values that they draw.
   */
  #seed(draw: (draws: DrawCounts) => string): string {
    const { id, incarnation } = this.dependencies
    const step = currentStep(this)
    const within = step ? ` in ${step.occurrence} ${step.name}` : ''
    return `${id} ${incarnation} ${draw(step ?? this.#draws)}${within}`
  }

  /** Returns the idempotency key of a step: unique to the step and to this incarnation of the execution. */
  idempotencyKeyOf({ name, occurrence }: StepId): string {
    const { id, incarnation } = this.dependencies
    return derivedUuid(`${id} ${incarnation} step ${occurrence} ${name}`)
  }

  /** @throws PawlError `invalid-option`, `step-nested` */
  protected validateCall(name: unknown, fn: unknown, what: string): void {
    const nameIsFine =
      typeof name === 'string' &&
      name !== '' &&
      name.length <= MAX_NAME &&
      name.isWellFormed() &&
      !name.includes('\0')
    if (!nameIsFine || typeof fn !== 'function') {
      throw new PawlError(
        'invalid-option',
        nameIsFine
          ? `The ${what} "${name}" was given no function.`
          : `A ${what} was given the name ${inspect(name)}.`,
        `Call ${what}(name, fn, options) with a name of 1 to ${MAX_NAME} characters.`,
      )
    }
    const around = currentStep(this)
    if (around !== null) {
      throw new PawlError(
        'step-nested',
        `The ${what} "${name}" was started inside "${around.name}".`,
        'Steps cannot be nested: start one after the other, in the handler.',
      )
    }
  }
}

/** The function and the options of a transaction, in either order. */
export type TransactionArguments<T, Tx> = [
  a: ((tx: Tx) => unknown) | TransactionOptions<T, Tx>,
  b?: ((tx: Tx) => unknown) | TransactionOptions<T, Tx>,
]

/** Returns the function and the options of a transaction, whichever comes first. */
export function parseTransactionArguments<T, Tx>(...[a, b]: TransactionArguments<T, Tx>) {
  const [fn, options] = typeof a === 'function' ? [a, b] : [b, a]
  return {
    fn: fn as (tx: never) => unknown,
    options: options as TransactionOptions<T, Tx> | undefined,
  }
}
