/** Polls the database for executions that are due, and runs them in this process. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Logger } from '../options/logger.ts'
import type { ExecutionSummary, LeasedExecution, WakeupStore } from '../store/wakeup-store.ts'
import type { Engine } from './engine.ts'

const FIRST_POLL_MS = 1000
const MAX_POLL_MS = 5000

/** The pause before polling again if due executions were locked by another transaction, in ms. */
const BUSY_MS = 50

export interface WorkerDependencies {
  engine: Engine
  wakeups: WakeupStore
  /** Returns the names of the handlers that this process has registered. */
  handlers: () => readonly string[]
  /** The largest number of executions that the worker runs at a time. */
  concurrency: number
  /** Runs a leased execution; resolves when its attempt has ended. */
  run: (leased: LeasedExecution) => Promise<void>
  /** Lets executions into their queues, within the limits; called before each poll. */
  admit?: () => Promise<AdmissionResult>
  /** Called with the executions that were leased, before they run. */
  onLeased?: (leased: readonly LeasedExecution[]) => void
  /** Called for each execution that runs here and was cancelled. */
  onCancelling?: (execution: ExecutionSummary) => void
  logger: Logger
}

/** The result of admitting executions from queues. */
export interface AdmissionResult {
  /** Whether there may be more executions to admit right now. */
  hasMore: boolean
  /** The time in ms until more may be admitted; null if unknown. */
  nextMs: number | null
}

const NOTHING: AdmissionResult = { hasMore: false, nextMs: null }

/**
 * Polls for due executions (pending or sleeping workflows, retries, crashed attempts), leases them and runs
 * them here. Every process may have a worker; the database gives each execution to one of them.
 */
export class Worker {
  readonly #dependencies: WorkerDependencies
  #timer: NodeJS.Timeout | undefined
  #polling: Promise<void> | null = null
  #pollMs = FIRST_POLL_MS
  #pollRequested = false
  /** Whether to poll as soon as one of the running executions ends. */
  #pollWhenFree = false
  #running = 0
  #reserved = 0
  /** The number of executions that the running poll may lease. */
  #requested = 0
  #started = false
  #stopped = false

  constructor(dependencies: WorkerDependencies) {
    this.#dependencies = dependencies
  }

  start(): void {
    this.#started = true
    this.pollNow()
  }

  /** Leases no more executions. The engine waits for those that run. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#polling
  }

  /** Polls now, or again after the running poll: something may be due. */
  pollNow(): void {
    // A request that starts or signals an execution calls this; executions that are due belong to others.
    runOutsideRequests(() => this.#pollNow())
  }

  #pollNow(): void {
    if (!this.#started || this.#stopped) return
    this.#pollRequested = true
    this.#pollWhenFree = false
    clearTimeout(this.#timer)
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = null
      this.#next()
    })
  }

  /** Reserves capacity for an execution that this process is about to start; null if the worker is full. */
  reserve(): Reservation | null {
    if (!this.#started || this.#stopped || this.#capacity <= 0) return null
    this.#reserved++
    let open = true
    const release = () => {
      if (open) this.#reserved--
      open = false
    }
    return {
      release,
      run: (leased) => {
        release()
        runOutsideRequests(() => this.#start(leased))
      },
    }
  }

  /** Whether all capacity is used or reserved, or the journals in memory leave no room. */
  get isFull(): boolean {
    const { concurrency, engine } = this.#dependencies
    return this.#running + this.#reserved >= concurrency || engine.isMemoryFull
  }

  /** The capacity that is neither used nor reserved nor requested by a poll. */
  get #capacity(): number {
    return this.#dependencies.concurrency - this.#running - this.#reserved - this.#requested
  }

  /** Plans the next poll. */
  #next(): void {
    if (this.#stopped) return
    if (this.isFull) {
      // Poll as soon as there is capacity, since more may be due. A flag, because a reaction that each poll adds to
      // the promise of a long execution stays there until that execution ends.
      if (this.#running > 0) this.#pollWhenFree = true
      else this.#timer = setTimeout(() => this.pollNow(), FIRST_POLL_MS).unref()
    } else if (this.#pollRequested) this.pollNow()
    else {
      // Jitter, so that processes that were deployed together do not poll at the same moments.
      const jitter = 0.75 + Math.random() / 2
      this.#timer = setTimeout(() => this.pollNow(), this.#pollMs * jitter).unref()
    }
  }

  async #poll(): Promise<void> {
    this.#pollRequested = false
    const { engine, wakeups, handlers, admit, onLeased, onCancelling, logger } = this.#dependencies
    // Half of the free capacity, so that executions that are started here meanwhile can run here at once.
    const capacity = engine.isMemoryFull ? 0 : Math.ceil(Math.max(this.#capacity, 0) / 2)
    this.#requested = capacity
    try {
      const names = handlers()
      if (names.length === 0) return
      const { hasMore, nextMs } = (await admit?.()) ?? NOTHING
      const due = await wakeups.leaseDue(names, capacity, engine.busyIds)
      this.#requested = 0
      const { leased, parked, cancelling } = due
      for (const execution of parked) {
        logger.warn('gave up on an execution; see pawl list, and pawl release', { ...execution })
      }
      onLeased?.(leased)
      for (const execution of cancelling) onCancelling?.(execution)
      for (const execution of leased) runOutsideRequests(() => this.#start(execution))
      if (leased.length > 0 || hasMore) this.#pollMs = FIRST_POLL_MS
      else this.#pollMs = Math.min(this.#pollMs + FIRST_POLL_MS, MAX_POLL_MS)
      // Poll again at once: as many were due as were requested, or more may be admitted.
      if ((capacity > 0 && due.examined >= capacity) || hasMore) this.#pollRequested = true
      else if (due.locked > 0) this.#pollMs = BUSY_MS
      if (!this.#pollRequested && !this.isFull) {
        const dueMs = await wakeups.nextDue(names)
        for (const ms of [dueMs, nextMs]) {
          if (ms !== null) this.#pollMs = Math.min(this.#pollMs, Math.max(ms, 5))
        }
      }
    } catch (error) {
      this.#pollMs = FIRST_POLL_MS
      logger.warn('polling for due executions failed; trying again', { error })
    } finally {
      this.#requested = 0
    }
  }

  async #start(leased: LeasedExecution): Promise<void> {
    this.#running++
    const { run, logger } = this.#dependencies
    const { id, key, scope, attempt } = leased
    if (attempt > 1) logger.debug('resuming an execution', { execution: id, key, scope, attempt })
    try {
      await run(leased)
    } catch (error) {
      logger.warn('running a due execution failed; trying again later', { error, execution: id })
    } finally {
      this.#running--
      if (this.#pollWhenFree) this.pollNow()
    }
  }
}

/** Capacity of a worker that is reserved for one execution. */
export interface Reservation {
  /** Frees the capacity. */
  release(): void
  /** Runs the execution in the reserved capacity. */
  run(leased: LeasedExecution): void
}
