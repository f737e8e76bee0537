/** Starts executions of workflows: validates input and options, checks the queue, and stores the new execution. */

import { hash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import canonicalize from 'canonicalize'
import type { z } from 'zod'
import { currentExecution, currentStep } from '../engine/current-execution.ts'
import { derivedUuid } from '../engine/execution-id.ts'
import { deadlineAfter, retryWhileUnavailable } from '../engine/retry/retry-while-unavailable.ts'
import { RunningExecution } from '../engine/running-execution.ts'
import { encodeValue } from '../engine/values/value-codec.ts'
import type { Reservation } from '../engine/worker.ts'
import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import { afterTransaction, runStatementOf } from '../store/database/app-transaction.ts'
import { type ExecutionKind, WORK_DUE } from '../store/execution-store.ts'
import type { LeasedExecution } from '../store/wakeup-store.ts'
import type { NewExecution } from '../store/workflow-store.ts'
import { parseWithSchema, type WorkflowDefinition } from './definition.ts'
import type { WorkflowDependencies } from './dependencies.ts'
import { startOptions } from './option-schemas.ts'
import type { StartOptions } from './start-options.ts'
import { checkSize } from './workflow-outcome.ts'

/**
 * The pauses before each look whether the app has committed a transaction, in ms: five seconds together. After
 * that, waiting for the polling of the workers takes no longer.
 */
const LOOK_PAUSES_MS = [20, 40, 80, 160, 320, 500, 500, 500, 500, 500, 500, 500, 500]

/** The validated options and input of an execution to be started. */
interface ValidatedStart {
  options: z.output<typeof startOptions>
  /** The encoded input. */
  bytes: Buffer
  scope: string
}

/** What the starter uses of this process's worker. */
export interface LocalWorker {
  /** Reserves room for an execution; null: the worker is full, or cannot run this definition. */
  reserve(definition: WorkflowDefinition): Reservation | null
  /** Makes the worker look for due executions now. */
  pollNow(): void
}

/** Starts executions of workflows and of objects' handlers. */
export class WorkflowStarter {
  readonly #dependencies: () => WorkflowDependencies
  readonly #worker: LocalWorker

  constructor(dependencies: () => WorkflowDependencies, worker: LocalWorker) {
    this.#dependencies = dependencies
    this.#worker = worker
  }

  /**
   * Starts one execution, unless one with its key exists.
   * @param scope the namespace of the execution's key: for an object's handler the object's key
   * @returns the key of the execution
   * @throws PawlError, see {@link Workflow.start}
   */
  async start(
    definition: WorkflowDefinition,
    input: unknown,
    options: StartOptions | undefined,
    scope = '',
  ): Promise<string> {
    const validated = await this.#validate(definition, input, options, scope)
    return this.#startValidated(definition, validated)
  }

  /**
   * Starts many executions of one definition, after all of them have been validated.
   * @returns their keys, in the order of `starts`
   * @throws PawlError, see {@link Workflow.startMany}
   */
  async startMany(
    definition: WorkflowDefinition,
    starts: readonly { input: unknown; options?: StartOptions }[],
  ): Promise<string[]> {
    const validated = await Promise.all(
      starts.map(({ input, options }) => this.#validate(definition, input, options)),
    )
    // The queue must have room for all of them or none starts. Not inside an execution: there each start is a
    // journal entry of its own, and may have happened in an earlier attempt.
    const allOrNone = !currentExecution()
    if (allOrNone) await this.#checkQueueDepth(definition, validated)
    return Promise.all(validated.map((start) => this.#startValidated(definition, start, allOrNone)))
  }

  /** @throws PawlError `invalid-option`, `input-invalid`, `limit-exceeded`, `value-unkeepable` */
  async #validate(
    definition: WorkflowDefinition,
    input: unknown,
    given: StartOptions | undefined,
    scope = '',
  ): Promise<ValidatedStart> {
    const { limits } = this.#dependencies()
    const what = `Workflow "${definition.name}"`
    const options = parseOptions(startOptions, given, `${what}.start()`)
    const bytes = await encodeInput(definition, input, limits.input)
    return { options, bytes, scope }
  }

  /** @param isDepthChecked whether the caller has checked that the queue has room */
  async #startValidated(
    definition: WorkflowDefinition,
    start: ValidatedStart,
    isDepthChecked = false,
  ): Promise<string> {
    const { options } = start
    const current = currentExecution()
    const running = current instanceof RunningExecution ? current : undefined
    const isInHandler = running && !currentStep(running)
    // In a request with `transaction: true` the start belongs to that transaction.
    const tx = options.tx ?? (isInHandler ? running.requestTransaction : undefined)
    const startWithKey = async (key: string) => {
      const keyed = { ...start, options: { ...options, key } }
      if (!isDepthChecked) await this.#checkQueueDepth(definition, [keyed])
      const execution = {
        ...this.#newExecution(definition, key, keyed),
        parent: current?.id ?? null,
        parentIncarnation: options.ignoreResult ? null : (running?.incarnation ?? null),
      }
      if (tx) await this.#startInTransaction(tx, execution)
      else if (await this.#startNow(definition, execution)) {
        if (execution.parentIncarnation !== null) running?.noteCreated(execution.id)
      }
      return key
    }
    // Inside a step or a transaction the start is part of it; directly in a handler it gets a journal entry.
    if (!isInHandler || tx) return startWithKey(options.key ?? current?.uuid() ?? randomUUID())
    return running.recordOnce('child', `start ${definition.name}`, ({ idempotencyKey }) =>
      startWithKey(options.key ?? idempotencyKey),
    )
  }

  /** Checks the queue's `maxDepth`. @throws PawlError `limit-exceeded` if it would be exceeded */
  async #checkQueueDepth(
    { kind, name, queue }: WorkflowDefinition,
    starts: ValidatedStart[],
  ): Promise<void> {
    const { queues, store } = this.#dependencies()
    const maxDepth = queue?.limits.maxDepth ?? null
    if (queue === null || maxDepth === null) return
    const depth = await queues.depth(queue.name)
    if (depth + starts.length <= maxDepth) return
    // Executions that were started before are already in the queue and must not count twice.
    const found = await Promise.all(
      starts.map(
        ({ options: { key }, scope }) =>
          key !== undefined && store.read(workflowExecutionId(kind, name, key, scope)),
      ),
    )
    if (found.every(Boolean)) return
    if (depth + found.filter((one) => !one).length <= maxDepth) return
    throw new PawlError(
      'limit-exceeded',
      `Queue "${queue.name}" has ${depth} executions waiting and allows at most ${maxDepth}; nothing was started.`,
      'Start the workflow again later, or raise maxDepth.',
    )
  }

  #newExecution(
    definition: WorkflowDefinition,
    key: string,
    { options: { delay, priority, queueKey }, bytes, scope }: ValidatedStart,
  ): Omit<NewExecution, 'parent' | 'parentIncarnation'> {
    const { kind, name, version, handler, queue, retry, timeoutMs } = definition
    const id = workflowExecutionId(kind, name, key, scope)
    return {
      id,
      scope,
      key,
      kind,
      name,
      version,
      fingerprint: fingerprintOf(bytes),
      input: this.#dependencies().engine.encryptInput({ id, input: bytes }),
      queue: queue?.name ?? null,
      lane: queueKey ?? null,
      handler,
      maxAttempts: retry.attempts,
      priority,
      delayMs: delay,
      timeoutMs,
      runsHere: false,
    }
  }

  async #startInTransaction(tx: unknown, start: NewExecution): Promise<void> {
    const found = await this.#dependencies().workflows.startInTransaction(runStatementOf(tx), start)
    if (found && !found.equals(start.fingerprint)) throw keyReused(start)
    if (found) return
    if (!afterTransaction(tx, () => this.#announce())) void this.#announceOnceCommitted(start.id)
  }

  /** Tells the workers of all processes that an execution is due. */
  #announce(): void {
    void this.#dependencies().store.notify([WORK_DUE])
    this.#worker.pollNow()
  }

  /**
   * Looks a few times whether the app has committed the transaction that starts an execution, and then announces
   * it. If the transaction is open for longer, the workers' own polling finds the execution.
   */
  async #announceOnceCommitted(id: string): Promise<void> {
    const { store, engine } = this.#dependencies()
    for (const pauseMs of LOOK_PAUSES_MS) {
      await sleep(pauseMs, undefined, { ref: false })
      if (engine.isStopped) return
      // A look that fails counts as one that sees nothing.
      if (await store.read(id).catch(() => null)) return this.#announce()
    }
  }

  /** Creates an execution, unless it exists. @returns whether this call is known to have created it */
  async #startNow(definition: WorkflowDefinition, start: NewExecution): Promise<boolean> {
    const { workflows, queues, storeTimeoutMs, engine } = this.#dependencies()
    const { queue } = definition
    // If this process can run the execution, it does so at once, without waiting for a worker to find it.
    const canRun = !start.queue && start.delayMs === 0
    const reservation = canRun ? this.#worker.reserve(definition) : null
    const endStarting = engine.markStarting(start.id)
    const giveUp = deadlineAfter(storeTimeoutMs)
    try {
      if (queue) await retryWhileUnavailable(() => queues.defineQueues([queue], false), giveUp)
      for (;;) {
        const runsHere = Boolean(reservation)
        const started = await retryWhileUnavailable(
          () => workflows.start({ ...start, runsHere }),
          giveUp,
        )
        if (started?.kind === 'started') {
          const { ref, at, mayBegin } = started
          if (reservation) reservation.run(leasedExecutionOf({ ...start, ...ref, at }))
          else if (start.delayMs === 0 && mayBegin) this.#announce()
          return true
        }
        if (started?.expired)
          await retryWhileUnavailable(() => workflows.deleteIfExpired(start.id), giveUp)
        else if (started && !started.fingerprint.equals(start.fingerprint)) throw keyReused(start)
        else if (started) return false
      }
    } finally {
      reservation?.release()
      endStarting()
    }
  }
}

/**
 * Validates and encodes an input. Undefined encodes to nothing; an execution without input is one that workers cannot
 * run, so it is stored as an empty input.
 * @param maxBytes the size limit of an encoded input
 * @throws PawlError `input-invalid`, `limit-exceeded`, `value-unkeepable`
 */
export async function encodeInput(
  { name, input: schema }: WorkflowDefinition,
  input: unknown,
  maxBytes: number,
): Promise<Buffer> {
  const what = `The input of Workflow "${name}"`
  const value = await parseWithSchema('input-invalid', what, schema, input)
  const bytes = encodeValue(value) ?? Buffer.alloc(0)
  checkSize(bytes, maxBytes, what)
  return bytes
}

/** An execution that this process has just started, in the form that a worker gets from the database. */
function leasedExecutionOf(
  started: NewExecution & { incarnation: string; attempt: number; at: string },
): LeasedExecution {
  const { timeoutMs, maxAttempts, at } = started
  return {
    ...started,
    inbox: 0,
    cancelling: false,
    begins: true,
    deadline: timeoutMs === null ? null : String(BigInt(at) + BigInt(timeoutMs) * 1000n),
    maxAttempts,
  }
}

/**
 * The id of the execution with this key. It does not depend on the version: a key identifies one execution of
 * a workflow. It cannot equal the id of a request, since no request's scope begins with NUL.
 */
export function workflowExecutionId(
  kind: ExecutionKind,
  name: string,
  key: string,
  scope = '',
): string {
  const path = scope === '' ? key : `${scope}\0${key}`
  return derivedUuid(`\0${kind}\0${name}\0${path}`)
}

/** A version byte, and the SHA-256 of the input, which does not depend on the order of JSON properties. */
function fingerprintOf(bytes: Buffer): Buffer {
  const isJson = bytes.length > 0 && bytes[0] !== 1
  const canonical = isJson ? canonicalize(JSON.parse(bytes.toString('utf8'))) : undefined
  const digest = hash('sha256', canonical ?? bytes, 'buffer')
  return Buffer.concat([Buffer.of(1), digest])
}

function keyReused({ name, key }: NewExecution): PawlError {
  return new PawlError(
    'key-reused',
    `Workflow "${name}" was started with the key "${key}" and another input.`,
    'Pass the same input again, or use another key to start another execution.',
  )
}
