import { hash, randomUUID } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { z } from 'zod'
import { currentExecution, currentStep } from '../engine/current-execution.ts'
import { derivedUuid } from '../engine/execution-id.ts'
import { after, persist } from '../engine/retry/retry-while-unavailable.ts'
import { RunningExecution } from '../engine/running-execution.ts'
import { encodeValue } from '../engine/values/value-codec.ts'
import type { Reservation } from '../engine/worker.ts'
import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import { runStatementOf } from '../store/database/app-transaction.ts'
import { DUE, type ExecutionKind } from '../store/execution-store.ts'
import type { Taken } from '../store/wakeup-store.ts'
import type { Start } from '../store/workflow-store.ts'
import { type Definition, fits } from './definition.ts'
import { startOptions } from './option-schemas.ts'
import { checkSize } from './workflow-outcome.ts'
import type { WorkflowParts } from './dependencies.ts'
import type { StartOptions } from './start-options.ts'

/** A start whose options and input are valid. */
interface Prepared {
  options: z.output<typeof startOptions>
  bytes: Buffer
  scope: string
}

/** The worker of this process, as whoever starts something needs it. */
export interface LocalWorker {
  /** Room for an execution of this definition; null if there is none, or it cannot run here. */
  reserve(definition: Definition): Reservation | null
  kick(): void
}

/** Starts executions. */
export class Starter {
  readonly #parts: () => WorkflowParts
  readonly #worker: LocalWorker

  constructor(parts: () => WorkflowParts, worker: LocalWorker) {
    this.#parts = parts
    this.#worker = worker
  }

  /**
   * @param scope within which its key names it: of an object's handler, the object's key
   * @returns the key it is started under
   * @throws PawlError, see {@link Workflow.start}
   */
  async start(
    definition: Definition,
    input: unknown,
    options: StartOptions | undefined,
    scope = '',
  ): Promise<string> {
    const prepared = await this.#prepare(definition, input, options, scope)
    return this.#startPrepared(definition, prepared)
  }

  async startMany(
    definition: Definition,
    starts: readonly { input: unknown; options?: StartOptions }[],
  ): Promise<string[]> {
    const prepared = await Promise.all(
      starts.map(({ input, options }) => this.#prepare(definition, input, options)),
    )
    // All or none. Inside an execution each start is a step of its own, and may have happened.
    const together = !currentExecution()
    if (together) await this.#checkDepth(definition, prepared)
    return Promise.all(prepared.map((start) => this.#startPrepared(definition, start, together)))
  }

  /** @throws PawlError `invalid-option`, `input-invalid`, `limit-exceeded`, `value-unkeepable` */
  async #prepare(
    definition: Definition,
    input: unknown,
    given: StartOptions | undefined,
    scope = '',
  ): Promise<Prepared> {
    const { limits } = this.#parts()
    const what = `Workflow "${definition.name}"`
    const options = parseOptions(startOptions, given, `${what}.start()`)
    const value = await fits('input-invalid', `The input of ${what}`, definition.input, input)
    // Nothing is stored for undefined, and a workflow without an input would be nobody's.
    const bytes = encodeValue(value) ?? Buffer.alloc(0)
    checkSize(bytes, limits.input, `The input of ${what}`)
    return { options, bytes, scope }
  }

  /** @param checked whether there is room for it in its queue */
  async #startPrepared(definition: Definition, start: Prepared, checked = false): Promise<string> {
    const { options } = start
    const current = currentExecution()
    const parent = current?.id ?? null
    const inHandler = current instanceof RunningExecution && !currentStep(current)
    // Of a request that is a transaction the start is a part.
    const tx = options.tx ?? (inHandler ? current.transactionOfRequest : undefined)
    const begin = async (key: string) => {
      const named = { ...start, options: { ...options, key } }
      if (!checked) await this.#checkDepth(definition, [named])
      const row = this.#startOf(definition, key, named, parent)
      await (tx ? this.#startIn(tx, row) : this.#startNow(definition, row))
      return key
    }
    // In a step or a transaction the start is a part of that; else it is a step itself.
    if (!inHandler || tx) return begin(options.key ?? current?.uuid() ?? randomUUID())
    return current.entry('child', `start ${definition.name}`, ({ idempotencyKey }) =>
      begin(options.key ?? idempotencyKey),
    )
  }

  /** @throws PawlError `limit-exceeded` if more would wait in its queue than may */
  async #checkDepth({ kind, name, queue }: Definition, starts: Prepared[]): Promise<void> {
    const { queues, store } = this.#parts()
    const most = queue?.maxDepth ?? null
    if (queue === null || most === null) return
    const depth = await queues.depth(queue.name, most)
    if (depth + starts.length <= most) return
    // What was started before does not count twice.
    const found = await Promise.all(
      starts.map(
        ({ options: { key }, scope }) =>
          key !== undefined && store.look(idOf(kind, name, key, scope)),
      ),
    )
    if (found.every(Boolean)) return
    if (depth + found.filter((one) => !one).length <= most) return
    throw new PawlError(
      'limit-exceeded',
      `Queue "${queue.name}" has ${depth} waiting, and at most ${most} may wait; nothing was started.`,
      'Start it again later, or raise maxDepth.',
    )
  }

  #startOf(
    definition: Definition,
    key: string,
    { options: { delay, priority, queueKey }, bytes, scope }: Prepared,
    parent: string | null,
  ): Start {
    const { kind, name, version, handler, queue, retry, timeoutMs } = definition
    const id = idOf(kind, name, key, scope)
    return {
      id,
      scope,
      key,
      kind,
      name,
      version,
      fingerprint: fingerprintOf(bytes),
      input: this.#parts().engine.seal({ id, input: bytes }),
      parent,
      queue: queue?.name ?? null,
      lane: queueKey ?? null,
      handler,
      attempts: retry.attempts,
      priority,
      delayMs: delay,
      timeoutMs,
      runs: false,
    }
  }

  async #startIn(tx: unknown, start: Start): Promise<void> {
    const found = await this.#parts().workflows.startIn(runStatementOf(tx), start)
    if (found && !found.equals(start.fingerprint)) throw keyReused(start)
  }

  async #startNow(definition: Definition, start: Start): Promise<void> {
    const { workflows, store, storeTimeoutMs, engine } = this.#parts()
    // Where this process can run it, it does so at once, without being told by the database.
    const canRun = !start.queue && start.delayMs === 0
    const reservation = canRun ? this.#worker.reserve(definition) : null
    const endStart = engine.starts(start.id)
    const giveUp = after(storeTimeoutMs)
    try {
      for (;;) {
        const runs = Boolean(reservation)
        const started = await persist(() => workflows.start({ ...start, runs }), giveUp)
        if (started?.kind === 'started') {
          const { ref, at } = started
          if (reservation) reservation.run(takenOf({ ...start, ...ref, at }))
          else if (start.delayMs === 0) {
            store.notify([DUE])
            this.#worker.kick()
          }
          return
        }
        if (started?.expired) await persist(() => workflows.forget(start.id), giveUp)
        else if (started && !started.fingerprint.equals(start.fingerprint)) throw keyReused(start)
        else if (started) return
      }
    } finally {
      reservation?.release()
      endStart()
    }
  }
}

/** An execution that this process has just started, as its worker takes it. */
function takenOf(started: Start & { born: string; attempt: number; at: string }): Taken {
  const { timeoutMs, attempts, at } = started
  return {
    ...started,
    inbox: 0,
    cancelling: false,
    deadline: timeoutMs === null ? null : String(BigInt(at) + BigInt(timeoutMs) * 1000n),
    maxAttempts: attempts,
  }
}

/** Whatever version runs it: a key names one execution of a workflow. No request's scope begins with NUL. */
export function idOf(kind: ExecutionKind, name: string, key: string, scope = ''): string {
  const path = scope === '' ? key : `${scope}\0${key}`
  return derivedUuid(`\0${kind}\0${name}\0${path}`)
}

/** A version byte, then the SHA-256 of the input, however its JSON is ordered. */
function fingerprintOf(bytes: Buffer): Buffer {
  const isJson = bytes.length > 0 && bytes[0] !== 1
  const canonical = isJson ? canonicalize(JSON.parse(bytes.toString('utf8'))) : undefined
  const digest = hash('sha256', canonical ?? bytes, 'buffer')
  return Buffer.concat([Buffer.of(1), digest])
}

function keyReused({ name, key }: Start): PawlError {
  return new PawlError(
    'key-reused',
    `Workflow "${name}" was started with the key "${key}" and another input.`,
    'Give the same input again, or another key for another execution.',
  )
}
