/** Lets executions into queues: those that arrive by themselves, and those whose turn nobody else has seen. */

import type { AdmissionResult } from '../../engine/worker.ts'
import type { Logger } from '../../options/logger.ts'
import type { Advance, Lane, QueueLook, QueueStore } from '../../store/queue-store.ts'
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
  /** When the next check is due, by performance.now(). */
  #checkAt = Number.NEGATIVE_INFINITY
  /** Other queues in which executions of this process's workflows still wait. */
  #former: readonly { queue: string; handler: string }[] = []
  /** The lanes that have room for more, by queue and lane. */
  readonly #open = new Map<string, Lane>()
  #isPromoting = false

  constructor(dependencies: AdmissionDependencies) {
    this.#dependencies = dependencies
  }

  /** Lets in what is due. Called before each poll. */
  async admit(): Promise<AdmissionResult> {
    const queues = this.#queues()
    const handlers = [...this.#dependencies.definitions()].map(({ handler }) => handler)
    if (queues.size === 0 && this.#former.length === 0 && performance.now() < this.#checkAt)
      return { hasMore: false, nextMs: null }
    const { store, logger } = this.#dependencies
    await store.defineQueues([...queues.keys()], true)
    await this.#check(queues, handlers)
    const handlersByQueue = this.#handlersByQueue(queues)
    await this.#announce(queues, handlersByQueue)
    if (handlersByQueue.size === 0) return { hasMore: false, nextMs: null }
    const looks = await store.look(
      [...handlersByQueue].flatMap(([queue, names]) =>
        names.map((handler) => ({ queue, handler })),
      ),
    )
    let hasMore = false
    const waitsMs: number[] = []
    for (const look of looks) {
      if (look.arrivesMs !== null && look.arrivesMs > 0) waitsMs.push(look.arrivesMs)
      if (look.rateLimitedMs !== null) waitsMs.push(look.rateLimitedMs)
      try {
        hasMore = (await this.#letIn(look, handlersByQueue.get(look.queue) ?? [])) || hasMore
      } catch (error) {
        // What is due in no queue, or in another one, must not wait for it.
        logger.warn('letting executions into a queue failed; trying again', {
          error,
          queue: look.queue,
        })
        waitsMs.push(VAIN_PAUSE_MS)
      }
    }
    return { hasMore, nextMs: waitsMs.length === 0 ? null : Math.min(...waitsMs) }
  }

  /** Lets executions into one queue. @returns whether any were */
  async #letIn(
    { queue, arrivesMs, isOpen }: QueueLook,
    handlers: readonly string[],
  ): Promise<boolean> {
    const { store, onWaiting } = this.#dependencies
    let hasArrived = false
    if (arrivesMs !== null && arrivesMs <= 0) {
      const { count, wanted } = await store.arrive(queue, handlers, MAX_ARRIVALS)
      hasArrived = count > 0
      wanted.forEach(onWaiting)
    }
    if (!isOpen || performance.now() < (this.#vainUntil.get(queue) ?? 0)) return hasArrived
    const { entered } = await store.promote([{ queue, lane: null }])
    if (entered === 0) this.#vainUntil.set(queue, performance.now() + VAIN_PAUSE_MS)
    return hasArrived || entered > 0
  }

  /** Handles that somebody has left a queue: others may have been let in, or may have to be. */
  onAdvance({ queue, lane, entered, hasMore }: Advance): void {
    if (entered > 0) this.#dependencies.pollNow()
    if (!hasMore) return
    const open = { queue, lane }
    this.#open.set(JSON.stringify(open), open)
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
        const { entered, hasMore } = await store.promote(lanes)
        if (entered === 0) continue
        pollNow()
        if (hasMore) for (const lane of lanes) this.#open.set(JSON.stringify(lane), lane)
      }
    } catch (error) {
      logger.debug('letting in the next executions failed; the next look will do it', { error })
    } finally {
      this.#isPromoting = false
    }
  }

  /** Says which handlers this process runs, in the queues that limit more than each key. */
  async #announce(
    queues: ReadonlyMap<Queue, readonly string[]>,
    handlersByQueue: ReadonlyMap<string, readonly string[]>,
  ): Promise<void> {
    const unlimited = [...queues.keys()].filter(({ limits }) => !hasOwnLimits(limits))
    const names = new Set(unlimited.map(({ name }) => name))
    await this.#dependencies.announce(
      Object.fromEntries([...handlersByQueue].filter(([queue]) => !names.has(queue))),
    )
  }

  /**
   * From time to time compares the counts of the queues with their executions, unless another process does, and looks
   * for queues in which this process's workflows were before.
   */
  async #check(queues: ReadonlyMap<Queue, unknown>, handlers: readonly string[]): Promise<void> {
    const began = performance.now()
    if (began < this.#checkAt) return
    this.#checkAt = began + CHECK_MS
    const { store, logger } = this.#dependencies
    const known = [...queues.keys()].map(({ name }) => name)
    try {
      this.#former = await store.formerQueues(handlers, known)
      const names = [...new Set([...known, ...this.#former.map(({ queue }) => queue)])]
      for (const queue of await store.claimCheck(names, CHECK_MS)) {
        const { corrections, open } = await store.mend(queue)
        for (const correction of corrections) {
          logger.warn('a count of a queue was wrong and has been corrected', { ...correction })
        }
        if (open.length > 0) await store.promote(open)
      }
    } catch (error) {
      logger.warn('checking the counts of the queues failed; trying again later', { error })
    }
    const tookMs = performance.now() - began
    this.#checkAt = began + Math.max(CHECK_MS, tookMs * CHECK_SHARE)
  }

  /** The handlers that this process runs, by the name of a queue in which their executions may wait. */
  #handlersByQueue(queues: ReadonlyMap<Queue, readonly string[]>): Map<string, string[]> {
    const byQueue = new Map([...queues].map(([{ name }, handlers]) => [name, [...handlers]]))
    for (const { queue, handler } of this.#former) {
      byQueue.set(queue, [...(byQueue.get(queue) ?? []), handler])
    }
    return byQueue
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

function hasOwnLimits({ concurrency, rate, maxDepth }: Queue['limits']): boolean {
  return concurrency !== null || rate !== null || maxDepth !== null
}
