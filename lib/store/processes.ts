import { hostname } from 'node:os'
import type { Logger } from '../logger.ts'
import type { Database } from './database.ts'
import { statements } from './statements.ts'

export interface ProcessOptions {
  id: string
  instance: string | null
  version: string
  /** After this long without a heartbeat the process counts as dead, in ms. */
  timeoutMs: number
}

/**
 * Says that this process is alive: one row and one heartbeat a process, however many executions it
 * runs. Three heartbeats fit into the timeout, so that one lost statement is not a death.
 */
export class Heartbeat {
  readonly #db: Database
  readonly #sql: ReturnType<typeof statements>
  readonly #options: ProcessOptions
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(db: Database, schema: string, options: ProcessOptions, logger: Logger) {
    this.#db = db
    this.#sql = statements(`"${schema}"`)
    this.#options = options
    this.#logger = logger
  }

  async start(): Promise<void> {
    const retired = await this.#register(this.#options.instance)
    if (retired > 0) {
      this.#logger.debug(`retired ${retired} predecessor(s)`, { instance: this.#options.instance })
    }
    this.#schedule()
  }

  /** Removes the row: whatever this process still owns is free to take at once. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#db.query(this.#sql.unregister, [this.#options.id])
  }

  async #register(instance: string | null): Promise<number> {
    const { id, version, timeoutMs } = this.#options
    const rows = await this.#db.query(this.#sql.register, [
      id,
      instance,
      hostname(),
      process.pid,
      version,
      timeoutMs,
    ])
    return rows.length
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#beat(), this.#options.timeoutMs / 3)
    this.#timer.unref()
  }

  async #beat(): Promise<void> {
    try {
      const rows = await this.#db.query(this.#sql.heartbeat, [
        this.#options.id,
        this.#options.timeoutMs,
      ])
      if (rows.length === 0 && !this.#stopped) {
        // We were taken for dead, or a second process runs under our instance name. We are alive:
        // say so, without retiring anybody. Outcomes stay single either way.
        this.#logger.warn('this process had been taken for dead and registers again', {
          process: this.#options.id,
          instance: this.#options.instance,
        })
        await this.#register(null)
      }
    } catch (error) {
      this.#logger.warn('heartbeat failed; trying again', { error })
    }
    if (!this.#stopped) this.#schedule()
  }
}
