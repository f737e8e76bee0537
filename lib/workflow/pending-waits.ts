/** Keeps the waits of a workflow attempt, and suspends the execution when only waits are left. */

import type { Attempt } from '../engine/attempt.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { retryWhileUnavailable } from '../engine/retry/retry-while-unavailable.ts'
import { CancelledError } from '../errors/index.ts'
import type { ChangeListener } from '../store/change-listener.ts'
import type { AttemptRef } from '../store/execution-store.ts'
import type { WorkflowStore } from '../store/workflow-store.ts'

/** How long a wait for a signal or result is kept in memory before the execution is suspended, in ms. */
const LINGER_MS = 250

/** A wait whose deadline is nearer than this is kept in memory, in ms. */
const NEAR_DEADLINE_MS = 1000

/** The longest delay that setTimeout supports. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** The value that a wait resolves to, or the error that it rejects with. */
export type WaitResult = { value: unknown } | { error: unknown }

/** One wait of an execution: for a point in time, or for a change that is notified under a topic. */
export interface Wait {
  /** When the wait times out, in microseconds since 1970; null: never. */
  deadline: bigint | null
  /** The notification topic whose messages trigger a check: an execution's id. Null: only the deadline counts. */
  topic: string | null
  /** The execution whose end is awaited, and whether its outcome is kept for this one without a registered wait. */
  execution?: { id: string; isKept: boolean }
  /** Checks whether the wait is over and, if so, records its result in the journal; null: not yet. */
  check: () => Promise<WaitResult | null>
}

interface PendingWait extends Wait {
  startedAt: number
  checking: Promise<void> | null
  /** The registration as a waiter of the awaited execution. */
  subscription: Promise<void> | null
  settled: boolean
  ended: AbortController
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
}

/** What {@link PendingWaits} needs. */
export interface PendingWaitsDependencies {
  ref: AttemptRef
  attempt: Attempt
  journal: Journal
  store: WorkflowStore
  changeListener: ChangeListener
  /** The inbox counter up to which the attempt has seen what arrived. */
  inbox: number
  /** The deadline of the whole execution, in microseconds since 1970; null: none. */
  deadline: bigint | null
  /** Whether other executions may be waiting for room in this process. */
  isWorkerFull: () => boolean
  /** Called when the execution has been suspended, or may have been, until another one ends. */
  onWaiting: (id: string) => void
  isStopped: () => boolean
}

/**
 * The pending waits of one attempt. A wait that may end soon is kept in memory. Otherwise, when no step is
 * running, the execution is suspended: it then takes up a row in the database but no memory. What ends a wait
 * also wakes the execution, and another attempt replays its journal up to this point.
 */
export class PendingWaits {
  readonly #dependencies: PendingWaitsDependencies
  readonly #pending = new Set<PendingWait>()
  #activeCount = 0
  #seenInbox: number
  #isSuspending = false
  #isEnded = false
  #lingerTimer: NodeJS.Timeout | undefined

  constructor(dependencies: PendingWaitsDependencies) {
    this.#dependencies = dependencies
    this.#seenInbox = dependencies.inbox
    dependencies.attempt.settled.then(() => this.#end())
    dependencies.attempt.onHalted = () => this.#halt()
  }

  /** Counts a running operation, so that the execution is not suspended while it runs. */
  async trackActive<T>(work: Promise<T>): Promise<T> {
    this.#activeCount++
    try {
      return await work
    } finally {
      this.#activeCount--
      this.#scheduleSuspension()
    }
  }

  /** Waits; the promise never settles if the execution is suspended meanwhile. */
  wait(wait: Wait): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const pending: PendingWait = {
        ...wait,
        startedAt: performance.now(),
        checking: null,
        subscription: null,
        settled: false,
        ended: new AbortController(),
        resolve,
        reject,
      }
      if (this.#isEnded) return
      const { haltReason } = this.#dependencies.journal
      if (haltReason) return reject(haltReason)
      this.#pending.add(pending)
      this.#watch(pending).catch((error) => this.#settle(pending, { error }))
      this.#scheduleSuspension()
    })
  }

  async #watch(wait: PendingWait): Promise<void> {
    const { changeListener } = this.#dependencies
    const { signal } = wait.ended
    while (this.#pending.has(wait)) {
      const left = wait.deadline === null ? MAX_TIMER_MS : this.#msUntil(wait.deadline)
      if (wait.topic !== null) {
        const check = async () => {
          await this.#check(wait)
          // Also if the attempt has ended meanwhile: the outcome must be there for the attempt that waits again.
          if (wait.execution?.isKept === false && !wait.settled) await this.#subscribe(wait)
          return this.#pending.has(wait) ? null : true
        }
        await changeListener.waitFor(
          wait.topic,
          check,
          Math.min(Math.max(left, 1), MAX_TIMER_MS),
          signal,
        )
      } else {
        await abortableDelay(Math.min(left, MAX_TIMER_MS), signal)
      }
      if (wait.deadline !== null && this.#msUntil(wait.deadline) <= 0) {
        await this.#check(wait)
        if (this.#pending.has(wait)) await abortableDelay(20, signal)
      }
    }
  }

  /** Checks a wait, one check at a time. While the execution is being suspended, only the suspension checks. */
  #check(wait: PendingWait, isForSuspension = false): Promise<void> {
    if (!this.#pending.has(wait) || (this.#isSuspending && !isForSuspension))
      return wait.checking ?? Promise.resolve()
    wait.checking ??= wait
      .check()
      .then(
        (result) => result && this.#settle(wait, result),
        (error) => this.#settle(wait, { error }),
      )
      .then(() => {
        wait.checking = null
      })
    return wait.checking
  }

  #settle(wait: PendingWait, result: WaitResult): void {
    if (!this.#pending.delete(wait)) return
    wait.settled = true
    wait.ended.abort()
    if ('error' in result) wait.reject(result.error)
    else wait.resolve(result.value)
    // Later waits for the same topic may have been checked already, when it was not yet their turn.
    for (const next of this.#pending) {
      if (next.topic !== null && next.topic === wait.topic) this.#check(next)
    }
    this.#scheduleSuspension()
  }

  /** Suspends the execution a moment later, when the code has run as far as it can, if only waits are left. */
  #scheduleSuspension(): void {
    if (this.#isEnded || this.#activeCount > 0 || this.#pending.size === 0) return
    setImmediate(() => setImmediate(() => this.#suspendIfIdle()))
  }

  get #isIdle(): boolean {
    return !this.#isEnded && this.#activeCount === 0 && this.#pending.size > 0
  }

  #suspendIfIdle(): void {
    if (!this.#isIdle || this.#isSuspending) return
    const lingerMs = this.#msToKeepInMemory()
    clearTimeout(this.#lingerTimer)
    if (lingerMs > 0) {
      this.#lingerTimer = setTimeout(() => this.#suspendIfIdle(), lingerMs).unref()
      return
    }
    this.#isSuspending = true
    this.#suspend()
      .catch(() => {
        // The store stays unavailable or Pawl has stopped: another process will continue the execution.
      })
      .finally(() => {
        this.#isSuspending = false
        if (this.#isEnded) return
        for (const wait of this.#pending) this.#check(wait)
        this.#scheduleSuspension()
      })
  }

  /** For how long the execution should stay in memory, in ms, since one of its waits may end soon. */
  #msToKeepInMemory(): number {
    const msToDeadlines = [...this.#pending].map(
      ({ deadline }) => deadline && this.#msUntil(deadline),
    )
    if (msToDeadlines.some((ms) => ms !== null && ms < NEAR_DEADLINE_MS)) return NEAR_DEADLINE_MS
    if (this.#dependencies.isWorkerFull()) return 0
    const waitsForChanges = [...this.#pending].filter(({ topic }) => topic !== null)
    return Math.max(
      0,
      ...waitsForChanges.map(({ startedAt }) => startedAt + LINGER_MS - performance.now()),
    )
  }

  async #suspend(): Promise<void> {
    const { ref, store, attempt, journal, isStopped, onWaiting } = this.#dependencies
    const waits = [...this.#pending]
    await Promise.all(waits.map(({ checking }) => checking))
    // An awaited execution that ends after this wakes this one; one that ended before is seen by the check below.
    await Promise.all(waits.map((wait) => this.#subscribe(wait)))
    const inbox = this.#seenInbox
    await Promise.all(waits.map((wait) => this.#check(wait, true)))
    if (!this.#isIdle || waits.some((wait) => !this.#pending.has(wait))) return
    await journal.recordCaughtFailures()
    if (!this.#isIdle || waits.some((wait) => !this.#pending.has(wait))) return
    const due = this.#wakeAt()
    const awaits = [...new Set(waits.flatMap(({ execution }) => execution?.id ?? []))]
    const listens = waits.some(({ execution }) => execution === undefined)
    const suspended = await retryWhileUnavailable(
      () =>
        store.suspend({ ...ref, inbox, due: due === null ? null : String(due), awaits, listens }),
      isStopped,
    )
    // Also where another attempt seems to be current: the reply of a suspension may have been lost.
    if (suspended.kind !== 'news' && awaits.length > 0) onWaiting(ref.id)
    if (suspended.kind === 'suspended') attempt.markSuspended()
    else if (suspended.kind === 'superseded') attempt.markSuperseded()
    else {
      this.#seenInbox = suspended.inbox
      if (suspended.cancelling) attempt.halt(new CancelledError())
    }
  }

  /** Registers this execution as a waiter of the awaited one, once for each wait. */
  async #subscribe(wait: PendingWait): Promise<void> {
    const { ref, store, isStopped } = this.#dependencies
    const { execution } = wait
    if (!execution) return
    wait.subscription ??= retryWhileUnavailable(
      () => store.subscribeToEnd(execution.id, ref.id),
      isStopped,
    ).catch((error) => {
      wait.subscription = null
      throw error
    })
    await wait.subscription
  }

  /** When the suspended execution must be woken by time, in microseconds since 1970; null: never. */
  #wakeAt(): bigint | null {
    const times = [...this.#pending].map(({ deadline }) => deadline)
    times.push(this.#dependencies.deadline)
    return times.reduce((a, b) => (a === null || (b !== null && b < a) ? b : a), null)
  }

  #msUntil(deadline: bigint): number {
    return Number((deadline - this.#dependencies.journal.databaseTime) / 1000n)
  }

  /** Rejects all waits, since the execution was cancelled or timed out. */
  #halt(): void {
    const error = this.#dependencies.journal.haltReason
    for (const wait of [...this.#pending]) this.#settle(wait, { error })
  }

  /** Drops all waits without settling them: the attempt is over and its code does not continue. */
  #end(): void {
    this.#isEnded = true
    clearTimeout(this.#lingerTimer)
    for (const wait of this.#pending) wait.ended.abort()
    this.#pending.clear()
  }
}

/** Resolves after a time, or when the signal fires. */
function abortableDelay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, Math.max(ms, 0)).unref()
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
  })
}
