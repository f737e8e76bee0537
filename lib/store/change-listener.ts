/** Waits for changes that other processes make to executions, by LISTEN/NOTIFY and polling. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Database } from './database/database.ts'

/** The pauses between reads where no notification arrives, in ms: the first, and the longest after doubling. */
export interface PollingIntervals {
  firstMs: number
  maxMs: number
}

const POLLING: PollingIntervals = { firstMs: 20, maxMs: 500 }

/**
 * Waits for executions that other processes run. Notifications make it fast. Polling makes it correct, also where
 * no notifications arrive (PgBouncer in transaction mode, a lost connection). A connection listens only while
 * there is something to wait for.
 */
export class ChangeListener {
  readonly #db: Database
  readonly #channel: string
  readonly #polling: PollingIntervals
  /** Callbacks by topic: an execution's id, or another notification's payload. */
  readonly #callbacks = new Map<string, Set<() => void>>()
  #listening: Promise<(() => Promise<void>) | null> | null = null

  constructor(db: Database, schema: string, polling: PollingIntervals = POLLING) {
    this.#db = db
    this.#channel = schema
    this.#polling = polling
  }

  /**
   * Calls `read` after each change, and at intervals, until it resolves to a value, on timeout, or on abort.
   * @returns the value, or null on timeout or abort
   */
  async waitFor<T>(
    id: string,
    read: () => Promise<T | null>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<T | null> {
    const deadline = performance.now() + timeoutMs
    let wake = () => {}
    let notified = false
    const onChange = () => {
      notified = true
      wake()
    }
    this.#add(id, onChange)
    signal?.addEventListener('abort', onChange)
    try {
      const { firstMs, maxMs } = this.#polling
      for (let poll = firstMs; ; poll = Math.min(poll * 2, maxMs)) {
        notified = false
        const result = await read()
        const left = deadline - performance.now()
        if (result !== null || left <= 0 || signal?.aborted) return result
        if (notified) continue
        await new Promise<void>((resolve) => {
          // Jitter, so that many waiters for one execution do not poll at the same time.
          const timer = setTimeout(resolve, Math.min(left, poll * (0.75 + Math.random() / 2)))
          wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
    } finally {
      signal?.removeEventListener('abort', onChange)
      this.#remove(id, onChange)
    }
  }

  /**
   * Calls `onChange` for each notification under this topic, until the returned function is called. Only a hint:
   * notifications can get lost, or may not arrive at all.
   */
  subscribe(topic: string, onChange: () => void): () => void {
    this.#add(topic, onChange)
    return () => this.#remove(topic, onChange)
  }

  /** Listens again if the listening connection was lost and there is something to wait for. */
  ensureListening(): void {
    if (this.#callbacks.size > 0) runOutsideRequests(() => this.#listen())
  }

  async close(): Promise<void> {
    const listening = this.#listening
    this.#listening = null
    await (await listening)?.()
  }

  #add(topic: string, onChange: () => void): void {
    const callbacks = this.#callbacks.get(topic)
    if (callbacks) callbacks.add(onChange)
    else this.#callbacks.set(topic, new Set([onChange]))
    this.ensureListening()
  }

  #listen(): void {
    if (this.#listening) return
    const listening: Promise<(() => Promise<void>) | null> = this.#db
      .listen(
        this.#channel,
        (payload) => {
          for (const onChange of this.#callbacks.get(payload) ?? []) onChange()
        },
        () => {
          if (this.#listening === listening) this.#listening = null
        },
      )
      .then((stop) => {
        // Changes before the connection listens are not notified: read again now that it does.
        for (const callbacks of this.#callbacks.values())
          for (const onChange of callbacks) onChange()
        return stop
      })
      // Listening is not allowed, not possible, or fails at present: polling is enough.
      .catch(() => {
        if (this.#listening === listening) this.#listening = null
        return null
      })
    this.#listening = listening
  }

  #remove(topic: string, onChange: () => void): void {
    const callbacks = this.#callbacks.get(topic)
    callbacks?.delete(onChange)
    if (callbacks?.size === 0) this.#callbacks.delete(topic)
    if (this.#callbacks.size === 0) this.close().catch(() => {})
  }
}
