/** Lets executions into queues: those that arrive by themselves, and those whose turn nobody else has seen. */

import type { AdmissionResult } from '../../engine/worker.ts'
import type { Logger } from '../../options/logger.ts'
import type { Advance, Lane, QueueStore } from '../../store/queue-store.ts'
import type { LeasedExecution } from '../../store/wakeup-store.ts'
import { handlerName, type WorkflowDefinition } from '../definition.ts'
import type { Queue } from './queue.ts'

/** How many arrivals one statement handles. */
const MAX_ARRIVALS = 200

/** How often the counts of each queue are compared with its executions, in ms, by one of the processes. */
const CHECK_MS = 60_000

/** A check of long queues takes at most one part in so many of the time. */
const CHECK_SHARE = 200

/** The pause after an attempt to let in what waits that let in none, since no live process runs it, in ms. */
const VAIN_PAUSE_MS = 1000

/** What {@link AdmissionControl} needs. */
export interface AdmissionDependencies {
  store: QueueStore
  /** The workflows that this process runs. */
  definitions: () => Iterable<WorkflowDefinition>
  /** Tells the other processes which handlers this process runs, by the name of their queue. */
  announce: (handlers: Record<string, readonly string[]>) => Promise<void>
  /** Called with an execution that others wait for, and that was not let in. */
  onWaiting: (id: string) => void
  /** Makes the worker look for due executions now. */
  pollNow: () => void
  logger: Logger
}

/**
 * Lets executions into the queues of this process's workflows. Most are let in by the statement that starts them, or
 * by the one that ends an execution before them; here is what is left: those that were delayed or started in a
 * transaction of the app, the rate limit's, and those that were committed while another one ended.
 */
export class AdmissionControl {
  readonly #dependencies: AdmissionDependencies
  /** Until when a queue is not tried again, by performance.now(). */
  readonly #vainUntil = new Map<string, number>()
  #checkedAt = Number.NEGATIVE_INFINITY
  #checkMs = CHECK_MS
  /** The lanes that have room for more, by queue and lane. */
  readonly #open = new Map<string, Lane>()
  #isPromoting = false

  constructor(dependencies: AdmissionDependencies) {
    this.#dependencies = dependencies
  }

  /** Lets in what is due. Called before each poll. */
  async admit(): Promise<AdmissionResult> {
    const queues = this.#queues()
    if (queues.size === 0) return { hasMore: false, nextMs: null }
    const { store, onWaiting } = this.#dependencies
    await this.#define(queues)
    await this.#check(queues)
    const looks = await store.look(
      [...queues].flatMap(([queue, handlers]) =>
        handlers.map((handler) => ({ queue: queue.name, handler })),
      ),
    )
    let hasMore = false
    const waitsMs: number[] = []
    for (const { queue, arrivesMs, isOpen, rateLimitedMs } of looks) {
      if (arrivesMs !== null && arrivesMs <= 0) {
        const handlers = handlersOf(queues, queue)
        const { count, wanted } = await store.arrive(queue, handlers, MAX_ARRIVALS)
        hasMore ||= count > 0
        wanted.forEach(onWaiting)
      } else if (arrivesMs !== null) waitsMs.push(arrivesMs)
      if (rateLimitedMs !== null) waitsMs.push(rateLimitedMs)
      if (!isOpen || performance.now() < (this.#vainUntil.get(queue) ?? 0)) continue
      const { entered } = await store.promote([{ queue, lane: null }])
      if (entered > 0) hasMore = true
      else this.#vainUntil.set(queue, performance.now() + VAIN_PAUSE_MS)
    }
    return { hasMore, nextMs: waitsMs.length === 0 ? null : Math.min(...waitsMs) }
  }

  /** Handles that somebody has left a queue: others may have been let in, or may have to be. */
  onAdvance({ queue, lane, entered, hasMore }: Advance): void {
    if (entered > 0) this.#dependencies.pollNow()
    if (!hasMore) return
    this.#open.set(JSON.stringify([queue, lane]), { queue, lane })
    if (!this.#isPromoting) void this.#promote()
  }

  /** Counts executions that begin, in the queues that limit how many may wait. */
  onLeased(leased: readonly LeasedExecution[]): void {
    const beginning = leased.filter(({ begins, isQueued }) => begins && isQueued)
    if (beginning.length === 0) return
    const { store, logger } = this.#dependencies
    for (const [queue, handlers] of this.#queues()) {
      if (queue.limits.maxDepth === null) continue
      const count = beginning.filter(({ kind, name, version }) =>
        handlers.includes(handlerName(kind, name, version)),
      ).length
      if (count === 0) continue
      store
        .begin(queue.name, count)
        .catch((error) => logger.debug('counting failed; the next check corrects it', { error }))
    }
  }

  async #promote(): Promise<void> {
    const { store, pollNow, logger } = this.#dependencies
    this.#isPromoting = true
    try {
      while (this.#open.size > 0) {
        const lanes = [...this.#open.values()]
        this.#open.clear()
        const { entered } = await store.promote(lanes)
        if (entered > 0) pollNow()
      }
    } catch (error) {
      logger.debug('letting in the next executions failed; the next look will do it', { error })
    } finally {
      this.#isPromoting = false
    }
  }

  /** Stores the limits of the queues, and says that this process runs their handlers. */
  async #define(queues: ReadonlyMap<Queue, readonly string[]>): Promise<void> {
    const { store, announce } = this.#dependencies
    await store.defineQueues([...queues.keys()], true)
    const limited = [...queues].filter(([{ limits }]) => hasOwnLimits(limits))
    await announce(Object.fromEntries(limited.map(([{ name }, handlers]) => [name, handlers])))
  }

  /** From time to time compares the counts of the queues with their executions, unless another process does. */
  async #check(queues: ReadonlyMap<Queue, unknown>): Promise<void> {
    const began = performance.now()
    if (began - this.#checkedAt < this.#checkMs) return
    this.#checkedAt = began
    const { store, logger } = this.#dependencies
    const names = [...queues.keys()].map(({ name }) => name)
    for (const queue of await store.claimCheck(names, this.#checkMs)) {
      const { corrections, open } = await store.mend(queue)
      for (const correction of corrections) {
        logger.warn('a count of a queue was wrong and has been corrected', { ...correction })
      }
      if (open.length > 0) await store.promote(open)
    }
    this.#checkMs = Math.max(CHECK_MS, (performance.now() - began) * CHECK_SHARE)
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

function handlersOf(
  queues: ReadonlyMap<Queue, readonly string[]>,
  name: string,
): readonly string[] {
  for (const [queue, handlers] of queues) if (queue.name === name) return handlers
  return []
}

function hasOwnLimits({ concurrency, rate, maxDepth }: Queue['limits']): boolean {
  return concurrency !== null || rate !== null || maxDepth !== null
}
