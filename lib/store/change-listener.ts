import type { Database } from './database/database.ts'

const FIRST_POLL_MS = 20
const MAX_POLL_MS = 500

/**
 * Waits for executions that other processes run. Notifications make it fast; polling makes it
 * right, also where notifications do not arrive (PgBouncer in transaction mode, a lost connection).
 * A connection listens only while somebody waits.
 */
export class Watch {
  readonly #db: Database
  readonly #channel: string
  readonly #waiting = new Map<string, Set<() => void>>()
  #listening: Promise<(() => Promise<void>) | null> | null = null

  constructor(db: Database, schema: string) {
    this.#db = db
    this.#channel = schema
  }

  /**
   * Calls `look` until it returns something, the time is up, or the signal fires.
   * @returns what `look` found, or null
   */
  async until<T>(
    id: string,
    look: () => Promise<T | null>,
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
    // What happened before somebody listened is not notified: look again then.
    this.#listening?.then(onChange)
    try {
      for (let poll = FIRST_POLL_MS; ; poll = Math.min(poll * 2, MAX_POLL_MS)) {
        notified = false
        const result = await look()
        const left = deadline - performance.now()
        if (result !== null || left <= 0 || signal?.aborted) return result
        if (notified) continue
        await new Promise<void>((resolve) => {
          // Jitter, so that many who wait for one execution do not ask in step.
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
   * Calls `onNews` whenever something is notified under this topic, where notifications arrive, until the
   * returned function is called. Nobody may rely on it.
   */
  subscribe(topic: string, onNews: () => void): () => void {
    this.#add(topic, onNews)
    return () => this.#remove(topic, onNews)
  }

  /** Listens again, if the connection that listened was lost while somebody waits. */
  keepListening(): void {
    if (this.#waiting.size > 0) this.#listen()
  }

  async close(): Promise<void> {
    const listening = this.#listening
    this.#listening = null
    await (await listening)?.()
  }

  #add(id: string, onChange: () => void): void {
    const waiting = this.#waiting.get(id)
    if (waiting) waiting.add(onChange)
    else this.#waiting.set(id, new Set([onChange]))
    this.#listen()
  }

  #listen(): void {
    if (this.#listening) return
    const listening: Promise<(() => Promise<void>) | null> = this.#db
      .listen(
        this.#channel,
        (payload) => {
          for (const notify of this.#waiting.get(payload) ?? []) notify()
        },
        () => {
          if (this.#listening === listening) this.#listening = null
        },
      )
      // Not allowed, not possible, or not now: polling is enough.
      .catch(() => {
        if (this.#listening === listening) this.#listening = null
        return null
      })
    this.#listening = listening
  }

  #remove(id: string, onChange: () => void): void {
    const waiting = this.#waiting.get(id)
    waiting?.delete(onChange)
    if (waiting?.size === 0) this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.close().catch(() => {})
  }
}
