import type { Attempt } from '../engine/attempt.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { persist } from '../engine/retry/retry-while-unavailable.ts'
import { CancelledError } from '../errors/index.ts'
import type { AttemptRef } from '../store/execution-store.ts'
import type { Watch } from '../store/change-listener.ts'
import type { WorkflowStore } from '../store/workflow-store.ts'

/** How long something that may arrive at any moment is waited for in memory, in ms. */
const LINGER_MS = 250

/** A time that is this near is waited for in memory, in ms. */
const NEAR_MS = 1000

/** What setTimeout can do. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** What came of a wait. */
export type Arrived = { value: unknown } | { error: unknown }

/** Something that an execution waits for. */
export interface Wait {
  /** When it is over by itself, in microseconds since 1970; null: never. */
  deadline: bigint | null
  /** What the news of it is filed under; null: only its time counts. */
  topic: string | null
  /** The execution whose end it waits for. */
  execution?: string
  /** Looks whether it has arrived, and records it. */
  look: () => Promise<Arrived | null>
}

interface OpenWait extends Wait {
  since: number
  looking: Promise<void> | null
  subscribed: boolean
  over: AbortController
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
}

/** What waits are made of. */
export interface WaitParts {
  ref: AttemptRef
  attempt: Attempt
  journal: Journal
  store: WorkflowStore
  watch: Watch
  /** What the attempt has seen of its inbox. */
  inbox: number
  /** When the execution's time is up, in microseconds since 1970. */
  deadline: bigint | null
  /** Whether other executions wait for room in this process. */
  crowded: () => boolean
  stopped: () => boolean
}

/**
 * What an attempt waits for. While something may come soon, it waits in memory; else, and when none of its
 * steps is under way, the execution is put to sleep: it then costs a row, and no memory. Whatever
 * it waits for wakes it, and another attempt replays its journal up to here.
 */
export class Waits {
  readonly #parts: WaitParts
  readonly #open = new Set<OpenWait>()
  #active = 0
  #inbox: number
  #resting = false
  #over = false
  #timer: NodeJS.Timeout | undefined

  constructor(parts: WaitParts) {
    this.#parts = parts
    this.#inbox = parts.inbox
    parts.attempt.settled.then(() => this.#end())
    parts.attempt.onHalt = () => this.#halt()
  }

  /** Counts work that is under way: nobody falls asleep over it. */
  async track<T>(work: Promise<T>): Promise<T> {
    this.#active++
    try {
      return await work
    } finally {
      this.#active--
      this.#arm()
    }
  }

  /** Resolves, or rejects, when it has arrived; never if the execution falls asleep over it. */
  wait(wait: Wait): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const open: OpenWait = {
        ...wait,
        since: performance.now(),
        looking: null,
        subscribed: false,
        over: new AbortController(),
        resolve,
        reject,
      }
      if (this.#over) return
      const { halted } = this.#parts.journal
      if (halted) return reject(halted)
      this.#open.add(open)
      this.#follow(open).catch((error) => this.#settle(open, { error }))
      this.#arm()
    })
  }

  async #follow(wait: OpenWait): Promise<void> {
    const { watch } = this.#parts
    const { signal } = wait.over
    while (this.#open.has(wait)) {
      const left = wait.deadline === null ? MAX_TIMER_MS : this.#msUntil(wait.deadline)
      if (wait.topic !== null) {
        const seen = async () => {
          await this.#look(wait)
          return this.#open.has(wait) ? null : true
        }
        await watch.until(wait.topic, seen, Math.min(Math.max(left, 1), MAX_TIMER_MS), signal)
      } else {
        await pause(Math.min(left, MAX_TIMER_MS), signal)
      }
      if (wait.deadline !== null && this.#msUntil(wait.deadline) <= 0) {
        await this.#look(wait)
        if (this.#open.has(wait)) await pause(20, signal)
      }
    }
  }

  /** One look at a time. While the execution is about to sleep, only that looks. */
  #look(wait: OpenWait, byRest = false): Promise<void> {
    if (!this.#open.has(wait) || (this.#resting && !byRest))
      return wait.looking ?? Promise.resolve()
    wait.looking ??= wait
      .look()
      .then(
        (arrived) => arrived && this.#settle(wait, arrived),
        (error) => this.#settle(wait, { error }),
      )
      .then(() => {
        wait.looking = null
      })
    return wait.looking
  }

  #settle(wait: OpenWait, arrived: Arrived): void {
    if (!this.#open.delete(wait)) return
    wait.over.abort()
    if ('error' in arrived) wait.reject(arrived.error)
    else wait.resolve(arrived.value)
    // Whoever has waited behind it has seen what is there, and it was not its turn.
    for (const next of this.#open) {
      if (next.topic !== null && next.topic === wait.topic) this.#look(next)
    }
    this.#arm()
  }

  /** Soon, when the code has gone on as far as it can, looks whether there is anything left but to wait. */
  #arm(): void {
    if (this.#over || this.#active > 0 || this.#open.size === 0) return
    setImmediate(() => setImmediate(() => this.#rest()))
  }

  get #isIdle(): boolean {
    return !this.#over && this.#active === 0 && this.#open.size > 0
  }

  #rest(): void {
    if (!this.#isIdle || this.#resting) return
    const soon = this.#soon()
    clearTimeout(this.#timer)
    if (soon > 0) {
      this.#timer = setTimeout(() => this.#rest(), soon).unref()
      return
    }
    this.#resting = true
    this.#sleep()
      .catch(() => {
        // The store is away for good, or Pawl has stopped: somebody else goes on with it.
      })
      .finally(() => {
        this.#resting = false
        if (this.#over) return
        for (const wait of this.#open) this.#look(wait)
        this.#arm()
      })
  }

  /** For how long what it waits for is near, in ms. */
  #soon(): number {
    const near = [...this.#open].map(({ deadline }) => deadline && this.#msUntil(deadline))
    if (near.some((ms) => ms !== null && ms < NEAR_MS)) return NEAR_MS
    if (this.#parts.crowded()) return 0
    const arriving = [...this.#open].filter(({ topic }) => topic !== null)
    return Math.max(0, ...arriving.map(({ since }) => since + LINGER_MS - performance.now()))
  }

  async #sleep(): Promise<void> {
    const { ref, store, attempt, journal, stopped } = this.#parts
    const waits = [...this.#open]
    await Promise.all(waits.map(({ looking }) => looking))
    // Whoever ends from here on wakes this one; who has ended before is seen by the look that follows.
    await Promise.all(waits.map((wait) => this.#subscribe(wait)))
    const inbox = this.#inbox
    await Promise.all(waits.map((wait) => this.#look(wait, true)))
    if (!this.#isIdle || waits.some((wait) => !this.#open.has(wait))) return
    await journal.keepFailures()
    if (!this.#isIdle || waits.some((wait) => !this.#open.has(wait))) return
    const due = this.#due()
    const suspended = await persist(
      () => store.suspend({ ...ref, inbox, due: due === null ? null : String(due) }),
      stopped,
    )
    if (suspended.kind === 'suspended') attempt.suspended()
    else if (suspended.kind === 'superseded') attempt.supersede()
    else {
      this.#inbox = suspended.inbox
      if (suspended.cancelling) attempt.halt(new CancelledError())
    }
  }

  async #subscribe(wait: OpenWait): Promise<void> {
    const { ref, store, stopped } = this.#parts
    const { execution } = wait
    if (!execution || wait.subscribed) return
    await persist(() => store.subscribe(execution, ref.id), stopped)
    wait.subscribed = true
  }

  /** When it goes on by itself. */
  #due(): bigint | null {
    const times = [...this.#open].map(({ deadline }) => deadline)
    times.push(this.#parts.deadline)
    return times.reduce((a, b) => (a === null || (b !== null && b < a) ? b : a), null)
  }

  #msUntil(deadline: bigint): number {
    return Number((deadline - this.#parts.journal.time) / 1000n)
  }

  /** Nothing new begins, and nothing is waited for. */
  #halt(): void {
    const error = this.#parts.journal.halted
    for (const wait of [...this.#open]) this.#settle(wait, { error })
  }

  /** What it waited for leads nowhere any more: its code never goes on. */
  #end(): void {
    this.#over = true
    clearTimeout(this.#timer)
    for (const wait of this.#open) wait.over.abort()
    this.#open.clear()
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
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
