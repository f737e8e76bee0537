import { randomUUID } from 'node:crypto'
import { LAST_ERROR } from '../engine/attempt.ts'
import { openOutcome } from '../engine/outcome.ts'
import { after, persist } from '../engine/retry/persist.ts'
import { within } from '../engine/retry/within.ts'
import { decodeValue, encodeValue } from '../engine/values/value.ts'
import { CancelledError, PawlError } from '../errors/index.ts'
import { DUE, type Outcome } from '../store/store.ts'
import type { Description } from '../store/workflow-store.ts'
import { checkSize } from './outcome.ts'
import type { WorkflowParts } from './parts.ts'

/** What is asked of a process: it need not run anything itself. */
type ControlParts = Pick<
  WorkflowParts,
  'store' | 'workflows' | 'watch' | 'sealer' | 'limits' | 'storeTimeoutMs'
> & {
  engine: Pick<WorkflowParts['engine'], 'attemptAt'>
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** What can be asked of executions that were started, wherever they run. */
export class Control {
  readonly #parts: () => ControlParts
  readonly #kick: () => void

  /** @param kick lets the worker of this process look */
  constructor(parts: () => ControlParts, kick: () => void) {
    this.#parts = parts
    this.#kick = kick
  }

  /** How an execution ended; null if it has not within that time. @throws PawlError */
  async untilEnd(id: string, timeoutMs: number): Promise<Outcome | null> {
    const { engine, store, watch, sealer, workflows } = this.#parts()
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const left = Math.min(deadline - performance.now(), 2 ** 31 - 1)
      const attempt = engine.attemptAt(id)
      if (!attempt) break
      const settled = await within(left, attempt.settled)
      if (!settled) return null
      if (settled.kind === 'done') return settled.outcome
      if (engine.attemptAt(id) === attempt) break
    }
    await this.#ask(() => store.await(id))
    const look = async (): Promise<Outcome | null> => {
      const found = await this.#ask(() => store.look(id))
      if (!found) throw missing(id)
      if (found.outcome) return openOutcome(sealer, id, found.outcome)
      if (found.status !== 'parked') return null
      const { name, lastError } = (await this.#ask(() => workflows.describe(id))) ?? {}
      const error = lastError ? decodeValue(sealer.open(lastError, id, LAST_ERROR)) : undefined
      throw new PawlError(
        'execution-parked',
        `Workflow "${name}" (${id}) has failed as often as it may, and is parked.`,
        'See what is wrong (pawl show), correct it, and let it go on with pawl release.',
        error,
      )
    }
    return watch.until(id, look, Math.max(deadline - performance.now(), 1))
  }

  /** @throws PawlError `execution-missing`, `decryption-failed` */
  async describe(id: string): Promise<Description> {
    const { workflows, sealer } = this.#parts()
    const found = UUID.test(id) ? await this.#ask(() => workflows.describe(id)) : null
    if (!found) throw missing(id)
    const { outcome, lastError } = found
    return {
      ...found,
      outcome: outcome && openOutcome(sealer, id, outcome),
      lastError: lastError && sealer.open(lastError, id, LAST_ERROR),
    }
  }

  /** @returns the ids of those that were asked to end */
  async cancel(id: string): Promise<string[]> {
    const { workflows, engine, store } = this.#parts()
    if (!UUID.test(id)) throw missing(id)
    const ids = await this.#ask(() => workflows.cancel(id))
    for (const id of ids) engine.attemptAt(id)?.halt(new CancelledError())
    store.notify([...ids, DUE])
    this.#kick()
    return ids
  }

  /** @throws PawlError `execution-missing`, `invalid-option`, `value-unkeepable`, `limit-exceeded` */
  async signal(id: string, name: string, value: unknown, options?: { id?: string }): Promise<void> {
    const { workflows, sealer, store, limits } = this.#parts()
    if (typeof name !== 'string' || name === '' || name.length > 255) {
      throw new PawlError(
        'invalid-option',
        'signal() was given no name.',
        'Call pawl.signal(id, name, value).',
      )
    }
    const bytes = encodeValue(value)
    checkSize(bytes, limits.input, `Signal "${name}"`)
    const sealed = bytes && sealer.seal(bytes, id, `signal ${name}`)
    const sender = options?.id ?? randomUUID()
    // Sent again, it is the same signal: it has its sender's id.
    const send = () => workflows.signal(id, name, sender, sealed)
    const sent = UUID.test(id) && (await this.#ask(send))
    if (!sent) throw missing(id)
    store.notify([id, DUE])
    this.#kick()
  }

  /** Asks again while the store is away, for as long as a request would wait for it. */
  #ask<T>(operation: () => Promise<T>): Promise<T> {
    return persist(operation, after(this.#parts().storeTimeoutMs))
  }
}

export function missing(id: string): PawlError {
  return new PawlError(
    'execution-missing',
    `There is no execution "${id}" that this could be asked of: it has ended, or there never was one.`,
    'The id is handle.id; pawl list shows those there are.',
  )
}
