import type { Logger } from '../logger.ts'
import type { Taken, WakeupStore } from '../store/wakeup-store.ts'
import type { Attempt } from './attempt.ts'
import type { Engine } from './engine.ts'

const FIRST_POLL_MS = 1000
const MAX_POLL_MS = 5000

/** Runs an attempt whose caller is gone. Resolves when its code has ended. */
export type Runner = (attempt: Attempt, input: Buffer) => Promise<void>

/** What a worker is made of. */
export interface WorkerParts {
  engine: Engine
  wakeups: WakeupStore
  /** What it works on. */
  queue: string
  /** How many executions it runs at a time. */
  concurrency: number
  runner: Runner
  logger: Logger
}

/**
 * Goes on with executions whose process has died: takes what is due and runs it here. Every process may
 * have one; the database gives each execution to one of them.
 */
export class Worker {
  readonly #parts: WorkerParts
  readonly #running = new Set<Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #polling: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(parts: WorkerParts) {
    this.#parts = parts
  }

  start(): void {
    this.#schedule(0)
  }

  /** Takes no more; what is running is the engine's to drain. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#polling
  }

  #schedule(pollMs: number): void {
    if (this.#stopped) return
    // Jitter, so that processes that were deployed together do not ask in step.
    const delay = pollMs * (0.75 + Math.random() / 2)
    this.#timer = setTimeout(() => {
      this.#polling = this.#poll().then((found) => {
        // There may be more: as soon as there is room for it.
        if (this.#isFull) Promise.race(this.#running).then(() => this.#schedule(0))
        else this.#schedule(found ? FIRST_POLL_MS : Math.min(pollMs + FIRST_POLL_MS, MAX_POLL_MS))
      })
    }, delay)
    this.#timer.unref()
  }

  get #isFull(): boolean {
    return this.#running.size >= this.#parts.concurrency
  }

  /** Whether something was due. */
  async #poll(): Promise<boolean> {
    const { engine, wakeups, queue, concurrency, logger } = this.#parts
    const free = concurrency - this.#running.size
    try {
      const { taken, parked } = await wakeups.takeDue(queue, free, engine.busy)
      for (const execution of parked) {
        logger.warn('gave up on an execution; see pawl list, and pawl release', { ...execution })
      }
      for (const execution of taken) {
        const running = this.#run(execution).finally(() => this.#running.delete(running))
        this.#running.add(running)
      }
      return taken.length > 0
    } catch (error) {
      logger.warn('looking for executions to resume failed; trying again', { error })
      return false
    }
  }

  async #run(taken: Taken): Promise<void> {
    const { engine, runner, logger } = this.#parts
    const { id, key, scope, attempt } = taken
    logger.debug('resuming an execution', { execution: id, key, scope, attempt })
    try {
      const resumed = await engine.resume(taken)
      if (!resumed) return
      try {
        await runner(resumed, engine.open(taken))
      } finally {
        // Whatever ended without recording anything gives it back; what has settled stays as it is.
        await resumed.release('released')
      }
    } catch (error) {
      logger.warn('resuming an execution failed; trying again later', { error, execution: id })
    }
  }
}
