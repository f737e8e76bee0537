import type { Admitted } from '../../engine/worker.ts'
import type { Logger } from '../../options/logger.ts'
import type { QueueStore } from '../../store/queue-store.ts'
import type { Lane } from '../../store/execution-store.ts'
import type { Definition } from '../definition.ts'
import type { Queue } from './queue.ts'

/** How often a process looks whether something is stuck: whoever had to see to it may have died. */
const SWEEP_MS = 5000

/** How soon it asks again if others were letting in, in ms. */
const AGAIN_MS = 10

/** What letting in needs of the process. */
export interface AdmissionParts {
  store: QueueStore
  /** The workflows that this process runs. */
  definitions: () => Iterable<Definition>
  /** Lets the worker look. */
  kick: () => void
  logger: Logger
}

/** Lets what waits in queues begin, as far as their limits allow. */
export class Admission {
  readonly #parts: AdmissionParts
  /** Queues that are open. */
  readonly #open = new Set<string>()
  #sweptAt = Number.NEGATIVE_INFINITY

  constructor(parts: AdmissionParts) {
    this.#parts = parts
  }

  /** @param room for how many there is room in this process */
  async admit(room: number): Promise<Admitted> {
    const queues = this.#queues()
    if (queues.size === 0 || room === 0) return { again: false, nextMs: null }
    const { store } = this.#parts
    await this.#prepare(queues)
    const ready = await store.ready(
      [...queues].flatMap(([queue, handlers]) =>
        handlers.map((handler) => ({ queue: queue.name, handler })),
      ),
    )
    let left = room
    let again = false
    const times: number[] = []
    // In no fixed order, so that no queue is always the one for which there is no room.
    for (const [queue, handlers] of shuffled([...queues])) {
      const dueMs = ready.get(queue.name)
      if (dueMs === undefined) continue
      if (dueMs > 0) {
        times.push(dueMs)
        continue
      }
      if (left === 0) continue
      const result = await store.admit(queue.name, queue.limits, handlers, left)
      left -= result.admitted
      again ||= result.admitted > 0 || result.aside > 0
      if (result.passedBy) times.push(AGAIN_MS * (0.5 + Math.random()))
      if (result.rateMs !== null) times.push(result.rateMs)
    }
    return { again, nextMs: times.length === 0 ? null : Math.min(...times) }
  }

  /** Something has ended that had been let in. */
  freed({ queue: name, lane }: Lane): void {
    const { store, kick, logger } = this.#parts
    const queue = [...this.#queues().keys()].find((queue) => queue.name === name)
    const places = queue?.limits.concurrencyPerKey
    if (lane === null || !places) {
      kick()
      return
    }
    store
      .promote({ queue: name, lane, places })
      .catch((error) => logger.debug('a lane is left to the next sweep', { error, lane }))
      .finally(kick)
  }

  /** Something was given up elsewhere: the next look is a thorough one. */
  sweepSoon(): void {
    this.#sweptAt = Number.NEGATIVE_INFINITY
  }

  async #prepare(queues: ReadonlyMap<Queue, readonly string[]>): Promise<void> {
    const { store } = this.#parts
    const names = [...queues.keys()].map(({ name }) => name)
    const sweeps = performance.now() - this.#sweptAt > SWEEP_MS
    const missing = sweeps ? names : names.filter((name) => !this.#open.has(name))
    if (missing.length > 0) await store.open(missing)
    for (const name of missing) this.#open.add(name)
    if (!sweeps) return
    this.#sweptAt = performance.now()
    await store.tidy(names)
    for (const { name, limits } of queues.keys()) {
      if (limits.concurrencyPerKey === null) continue
      const stuck = await store.stuck(name, limits.concurrencyPerKey)
      await Promise.all(stuck.map((lane) => store.promote(lane)))
    }
  }

  /** The queues of what this process runs, and what can run it. */
  #queues(): Map<Queue, string[]> {
    const byName = new Map<string, [Queue, string[]]>()
    for (const { queue, handler } of this.#parts.definitions()) {
      if (!queue) continue
      const known = byName.get(queue.name)
      if (known) known[1].push(handler)
      else byName.set(queue.name, [queue, [handler]])
    }
    return new Map(byName.values())
  }
}

function shuffled<T>(items: T[]): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[items[i], items[j]] = [items[j] as T, items[i] as T]
  }
  return items
}
