import { hash } from 'node:crypto'
import { inspect } from 'node:util'
import { PawlError } from '../errors/index.ts'
import type { StepKind, StepName, StepStore } from '../store/step-store.ts'
import { currentStep, type Draws } from './current-execution.ts'
import type { Execution, RunStep, RunTransaction } from './execution.ts'
import { derivedUuid } from './execution-id.ts'
import type { Journal } from './journal/journal.ts'
import type { Undo, UndoLog } from './steps/compensation.ts'
import { runStep } from './steps/step.ts'
import {
  resolveStep,
  resolveTransaction,
  type StepContext,
  type StepOptions,
  type TransactionOptions,
} from './steps/step-options.ts'
import { runTransaction } from './steps/transaction.ts'

/** The longest name of a step, in characters: it is part of an index. */
const MAX_NAME = 255

/** What a running execution is made of. */
export interface ExecutionParts {
  id: string
  scope: string
  key: string
  attempt: number
  recovering: boolean
  /** Names this life of the execution. */
  born: string
  journal: Journal
  steps: StepStore
  undoLog: UndoLog
  /** The transaction that the request is, and whether it blocks steps; undefined if it is none. */
  transactionOfRequest: () => { tx: unknown; blocks: boolean } | undefined
  /** Asked for when the app does: few handlers want one. */
  signal: () => AbortSignal
}

/** The Execution of an attempt that is running here. */
export class RunningExecution implements Execution {
  readonly id: string
  readonly scope: string
  readonly key: string
  readonly attempt: number
  readonly recovering: boolean
  readonly #parts: ExecutionParts
  /** What the handler has drawn, between its steps. */
  readonly #draws: Draws = { randoms: 0, uuids: 0 }

  constructor(parts: ExecutionParts) {
    this.id = parts.id
    this.scope = parts.scope
    this.key = parts.key
    this.attempt = parts.attempt
    this.recovering = parts.recovering
    this.#parts = parts
  }

  /** No property of the object itself: it may be spread, or made JSON of. */
  protected get parts(): ExecutionParts {
    return this.#parts
  }

  get abortSignal(): AbortSignal {
    return this.parts.signal()
  }

  get tx(): unknown {
    const transaction = this.parts.transactionOfRequest()
    if (transaction) return transaction.tx
    throw new PawlError(
      'no-transaction',
      'This request is not run as a transaction, so it has no execution.tx.',
      'Give the route transaction: true, or use execution.transaction(name, fn).',
    )
  }

  /** The transaction that the request is; undefined if it is none. */
  get transactionOfRequest(): unknown {
    return this.parts.transactionOfRequest()?.tx
  }

  step: RunStep = async <T>(
    name: string,
    fn: (context: StepContext) => unknown,
    options?: StepOptions<T>,
  ): Promise<T> => {
    const { journal } = this.parts
    this.checkUse(name, fn, 'step')
    if (this.parts.transactionOfRequest()?.blocks) {
      throw new PawlError(
        'step-nested',
        `Step "${name}" was started in a request that is a transaction, and holds the only connection.`,
        'Give the pool more connections, or write through execution.tx.',
      )
    }
    const resolved = resolveStep(name, options)
    const use = journal.use(name, 'step')
    const running = runStep(this, journal, use, this.keyOf(use), fn, resolved)
    return this.track(this.parts.undoLog.note(use, resolved.compensate, running)) as Promise<T>
  }

  transaction: RunTransaction = async <T, Tx>(
    name: string,
    ...rest: TransactionArguments<T, Tx>
  ): Promise<T> => {
    const { fn, options } = splitTransaction(...rest)
    const { journal, steps } = this.parts
    this.checkUse(name, fn, 'transaction')
    if (this.parts.transactionOfRequest()) {
      throw new PawlError(
        'step-nested',
        `Transaction "${name}" was started in a request that is a transaction itself.`,
        'Write through execution.tx: it commits with the answer.',
      )
    }
    const resolved = resolveTransaction(name, options)
    const use = journal.use(name, 'transaction')
    const running = runTransaction(this, journal, steps, use, fn, resolved)
    const { compensate } = resolved
    const noted = this.parts.undoLog.note(use, compensate as Undo | undefined, running)
    return this.track(noted) as Promise<T>
  }

  /** Runs what is neither a step nor a transaction of the app's once, and records what it gives. */
  async entry<T>(
    kind: StepKind,
    name: string,
    fn: (context: StepContext) => Promise<T>,
  ): Promise<T> {
    this.checkUse(name, fn, kind)
    const use = this.parts.journal.use(name, kind)
    const { journal } = this.parts
    const running = runStep(this, journal, use, this.keyOf(use), fn, resolveStep(name, undefined))
    return this.track(running) as Promise<T>
  }

  /** Whatever is told of the work that is under way. */
  protected track<T>(running: Promise<T>): Promise<T> {
    return running
  }

  now(): Date {
    return new Date(Number(BigInt(this.parts.journal.now) / 1000n))
  }

  random(): number {
    const bits = hash(
      'sha256',
      this.#seed((draws) => `random ${++draws.randoms}`),
      'buffer',
    )
    // 53 bits, as many as a number holds.
    return Number(bits.readBigUInt64BE() >> 11n) / 2 ** 53
  }

  uuid(): string {
    return derivedUuid(this.#seed((draws) => `uuid ${++draws.uuids}`))
  }

  /**
   * What a drawn value is derived from. A step counts for itself: it does not run in later attempts, and
   * must not change what they draw.
   */
  #seed(draw: (draws: Draws) => string): string {
    const { id, born } = this.parts
    const step = currentStep(this)
    const within = step ? ` in ${step.occurrence} ${step.name}` : ''
    return `${id} ${born} ${draw(step ?? this.#draws)}${within}`
  }

  /** The idempotency key of a step: of this life of the execution, and of no other step. */
  keyOf({ name, occurrence }: StepName): string {
    const { id, born } = this.parts
    return derivedUuid(`${id} ${born} step ${occurrence} ${name}`)
  }

  /** @throws PawlError `invalid-option`, `step-nested` */
  protected checkUse(name: unknown, fn: unknown, what: string): void {
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
        'A step is the smallest thing that is recorded: start one after the other, in the handler.',
      )
    }
  }
}

/** A transaction's function and options, in either order. */
export type TransactionArguments<T, Tx> = [
  a: ((tx: Tx) => unknown) | TransactionOptions<T, Tx>,
  b?: ((tx: Tx) => unknown) | TransactionOptions<T, Tx>,
]

export function splitTransaction<T, Tx>(...[a, b]: TransactionArguments<T, Tx>) {
  const [fn, options] = typeof a === 'function' ? [a, b] : [b, a]
  return {
    fn: fn as (tx: never) => unknown,
    options: options as TransactionOptions<T, Tx> | undefined,
  }
}
