import type { Logger } from '../options/logger.ts'
import type { Named, Taken, WakeupStore } from '../store/wakeup-store.ts'
import type { Engine } from './engine.ts'

const FIRST_POLL_MS = 1000
const MAX_POLL_MS = 5000

/** When to look again at what somebody else was writing to, in ms. */
const BUSY_MS = 50

/** What a worker is made of. */
export interface WorkerParts {
  engine: Engine
  wakeups: WakeupStore
  /** What this process can go on with. */
  handlers: () => readonly string[]
  /** How many executions it runs at a time. */
  concurrency: number
  /** Runs an execution that was taken. Resolves when this process has nothing to do with it any more. */
  run: (taken: Taken) => Promise<void>
  /** What comes before it asks: executions may have to be let in first. */
  admit?: (room: number) => Promise<Admitted>
  /** Told of executions that were given up, since their attempts had been used up by processes that died. */
  onParked?: (execution: Named) => void
  /** Told of executions that run here and were asked to end. */
  onCancelling?: (execution: Named) => void
  logger: Logger
}

/** What came of letting executions in. */
export interface Admitted {
  /** Whether there may be more to let in, now. */
  again: boolean
  /** In how many ms there may be; null if nobody knows. */
  nextMs: number | null
}

const NOTHING: Admitted = { again: false, nextMs: null }

/**
 * Goes on with executions that nobody works on: takes what is due and runs it here. Every process may
 * have one; the database gives each execution to one of them.
 */
export class Worker {
  readonly #parts: WorkerParts
  readonly #running = new Set<Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #polling: Promise<void> | null = null
  #pollMs = FIRST_POLL_MS
  #kicked = false
  #reserved = 0
  /** For how many the database is being asked. */
  #asked = 0
  #started = false
  #stopped = false

  constructor(parts: WorkerParts) {
    this.#parts = parts
  }

  start(): void {
    this.#started = true
    this.kick()
  }

  /** Takes no more; what is running is the engine's to drain. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#polling
  }

  /** Asks now: something may be due. */
  kick(): void {
    if (!this.#started || this.#stopped) return
    this.#kicked = true
    clearTimeout(this.#timer)
    this.#polling ??= this.#poll().finally(() => {
      this.#polling = null
      this.#next()
    })
  }

  /** Keeps room for an execution that this process is about to start; null if there is none. */
  reserve(): Reservation | null {
    if (!this.#started || this.#stopped || this.#room <= 0) return null
    this.#reserved++
    let open = true
    const release = () => {
      if (open) this.#reserved--
      open = false
    }
    return {
      release,
      run: (taken) => {
        release()
        this.#begin(taken)
      },
    }
  }

  get isFull(): boolean {
    return this.#running.size + this.#reserved >= this.#parts.concurrency
  }

  /** For how many more there is room that nobody has asked for. */
  get #room(): number {
    return this.#parts.concurrency - this.#running.size - this.#reserved - this.#asked
  }

  #next(): void {
    if (this.#stopped) return
    if (this.isFull) {
      // There may be more: as soon as there is room for it.
      if (this.#running.size > 0) Promise.race(this.#running).then(() => this.kick())
      else this.#timer = setTimeout(() => this.kick(), FIRST_POLL_MS).unref()
    } else if (this.#kicked) this.kick()
    else {
      // Jitter, so that processes that were deployed together do not ask in step.
      const jitter = 0.75 + Math.random() / 2
      this.#timer = setTimeout(() => this.kick(), this.#pollMs * jitter).unref()
    }
  }

  async #poll(): Promise<void> {
    this.#kicked = false
    const { engine, wakeups, handlers, admit, onParked, onCancelling, logger } = this.#parts
    // Half of it, so that what is started here meanwhile can run here at once.
    const room = Math.ceil(Math.max(this.#room, 0) / 2)
    this.#asked = room
    try {
      const names = handlers()
      if (names.length === 0) return
      const { again, nextMs } = (await admit?.(room)) ?? NOTHING
      const due = await wakeups.takeDue(names, room, engine.busy)
      this.#asked = 0
      const { taken, parked, cancelling } = due
      for (const execution of parked) {
        logger.warn('gave up on an execution; see pawl list, and pawl release', { ...execution })
        onParked?.(execution)
      }
      for (const execution of cancelling) onCancelling?.(execution)
      for (const execution of taken) this.#begin(execution)
      if (taken.length > 0 || again) this.#pollMs = FIRST_POLL_MS
      else this.#pollMs = Math.min(this.#pollMs + FIRST_POLL_MS, MAX_POLL_MS)
      // As many as were asked for, or some that others let in: there may be more.
      if ((room > 0 && due.looked >= room) || again) this.#kicked = true
      else if (due.busy > 0) this.#pollMs = BUSY_MS
      if (!this.#kicked && !this.isFull) {
        const dueMs = await wakeups.nextDue(names)
        for (const ms of [dueMs, nextMs]) {
          if (ms !== null) this.#pollMs = Math.min(this.#pollMs, Math.max(ms, 5))
        }
      }
    } catch (error) {
      this.#pollMs = FIRST_POLL_MS
      logger.warn('looking for executions to resume failed; trying again', { error })
    } finally {
      this.#asked = 0
    }
  }

  #begin(taken: Taken): void {
    const running = this.#run(taken).finally(() => this.#running.delete(running))
    this.#running.add(running)
  }

  async #run(taken: Taken): Promise<void> {
    const { run, logger } = this.#parts
    const { id, key, scope, attempt } = taken
    if (attempt > 1) logger.debug('resuming an execution', { execution: id, key, scope, attempt })
    try {
      await run(taken)
    } catch (error) {
      logger.warn('resuming an execution failed; trying again later', { error, execution: id })
    }
  }
}

/** Room in a worker. */
export interface Reservation {
  /** Gives it back. */
  release(): void
  /** Runs an execution there. */
  run(taken: Taken): void
}
