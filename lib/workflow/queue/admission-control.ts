/** Admits waiting executions from queues, as far as the queues' limits allow. */

import type { AdmissionResult } from '../../engine/worker.ts'
import type { Logger } from '../../options/logger.ts'
import type { FreedLane } from '../../store/execution-store.ts'
import type { QueueStore } from '../../store/queue-store.ts'
import type { WorkflowDefinition } from '../definition.ts'
import type { Queue } from './queue.ts'

/**
 * How often a process looks for slots and lanes that a dead process has left blocked, in ms.
 */
const SWEEP_MS = 5000

/** The mean delay before another try, if another process was admitting from the queue, in ms. */
const CONTENTION_RETRY_MS = 10

/** What {@link AdmissionControl} needs. */
export interface AdmissionDependencies {
  store: QueueStore
  /** The workflows that this process runs. */
  definitions: () => Iterable<WorkflowDefinition>
  /** Makes the worker look for due executions now. */
  pollNow: () => void
  logger: Logger
}

/** Admits executions from the queues of this process's workflows. */
export class AdmissionControl {
  readonly #dependencies: AdmissionDependencies
  /** The names of the queues whose gate rows this process has made sure of. */
  readonly #withGate = new Set<string>()
  #sweptAt = Number.NEGATIVE_INFINITY

  constructor(dependencies: AdmissionDependencies) {
    this.#dependencies = dependencies
  }

  /** @param capacity how many executions this process can run now, which limits how many are admitted */
  async admit(capacity: number): Promise<AdmissionResult> {
    const queues = this.#queues()
    if (queues.size === 0 || capacity === 0) return { hasMore: false, nextMs: null }
    const { store } = this.#dependencies
    await this.#prepare(queues)
    const dueMsByQueue = await store.nextDue(
      [...queues].flatMap(([queue, handlers]) =>
        handlers.map((handler) => ({ queue: queue.name, handler })),
      ),
    )
    let left = capacity
    let hasMore = false
    const waitsMs: number[] = []
    // In random order, so that no queue is always the one that is left without capacity.
    for (const [queue, handlers] of shuffled([...queues])) {
      const dueMs = dueMsByQueue.get(queue.name)
      if (dueMs === undefined) continue
      if (dueMs > 0) {
        waitsMs.push(dueMs)
        continue
      }
      if (left === 0) continue
      const result = await store.admit(queue.name, queue.limits, handlers, left)
      left -= result.admitted
      hasMore ||= result.admitted > 0 || result.blocked > 0
      if (result.skipped) waitsMs.push(CONTENTION_RETRY_MS * (0.5 + Math.random()))
      if (result.rateLimitedMs !== null) waitsMs.push(result.rateLimitedMs)
    }
    return { hasMore, nextMs: waitsMs.length === 0 ? null : Math.min(...waitsMs) }
  }

  /** Handles the end of an execution that had been admitted: another one may be admitted in its place. */
  onSlotFreed({ queue: name, lane }: FreedLane): void {
    const { store, pollNow, logger } = this.#dependencies
    const queue = [...this.#queues().keys()].find((queue) => queue.name === name)
    const slots = queue?.limits.concurrencyPerKey
    if (lane === null || !slots) {
      pollNow()
      return
    }
    store
      .unblockNext({ queue: name, lane, slots })
      .catch((error) =>
        logger.debug('unblocking a lane failed; the next sweep will unblock it', { error, lane }),
      )
      .finally(pollNow)
  }

  /** Makes the next admission sweep first, since an execution of a dead process was parked and may hold slots. */
  requestSweep(): void {
    this.#sweptAt = Number.NEGATIVE_INFINITY
  }

  /** Creates missing gate rows and, from time to time, frees what dead processes have left blocked. */
  async #prepare(queues: ReadonlyMap<Queue, readonly string[]>): Promise<void> {
    const { store } = this.#dependencies
    const names = [...queues.keys()].map(({ name }) => name)
    const isSweepDue = performance.now() - this.#sweptAt > SWEEP_MS
    const missing = isSweepDue ? names : names.filter((name) => !this.#withGate.has(name))
    if (missing.length > 0) await store.createGates(missing)
    for (const name of missing) this.#withGate.add(name)
    if (!isSweepDue) return
    this.#sweptAt = performance.now()
    await store.freeOrphanedSlots(names)
    for (const { name, limits } of queues.keys()) {
      if (limits.concurrencyPerKey === null) continue
      const stuck = await store.stuckLanes(name, limits.concurrencyPerKey)
      await Promise.all(stuck.map((lane) => store.unblockNext(lane)))
    }
  }

  /** The queues that this process's workflows use, with the handlers of these workflows. */
  #queues(): Map<Queue, string[]> {
    const byName = new Map<string, [Queue, string[]]>()
    for (const { queue, handler } of this.#dependencies.definitions()) {
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
