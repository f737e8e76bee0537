import { hostname } from 'node:os'
import type { Logger } from '../options/logger.ts'
import type { Database } from './database/database.ts'
import { statements } from './sql/execution-statements.ts'

export interface ProcessOptions {
  id: string
  instance: string | null
  version: string
  /** After this long without a heartbeat the process counts as dead, in ms. */
  timeoutMs: number
}

/**
 * Says that this process is alive: one row and one heartbeat a process, however many executions it
 * runs. Three heartbeats fit into the timeout, and none waits for the one before it, so that one lost
 * statement is not a death; nor is a pool that the app has exhausted.
 */
export class Heartbeat {
  readonly #db: Database
  readonly #sql: ReturnType<typeof statements>
  readonly #options: ProcessOptions
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #underWay = 0
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
    this.#timer = setInterval(() => this.#beat(), this.#options.timeoutMs / 3)
    this.#timer.unref()
  }

  /** Removes the row: whatever this process still owns is free to take at once. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#unregister()
  }

  async #unregister(): Promise<void> {
    await this.#db.query(this.#sql.unregister, [this.#options.id])
  }

  async #register(instance: string | null): Promise<number> {
    const { id, version, timeoutMs } = this.#options
    const rows = await this.#db.urgent(this.#sql.register, [
      id,
      instance,
      hostname(),
      process.pid,
      version,
      timeoutMs,
    ])
    return rows.length
  }

  async #beat(): Promise<void> {
    // More would only queue for a database that does not answer.
    if (this.#underWay >= 3) return
    this.#underWay++
    try {
      const rows = await this.#db.urgent(this.#sql.heartbeat, [
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
        if (this.#stopped) await this.#unregister() // It was too late to be alive.
      }
    } catch (error) {
      this.#logger.warn('heartbeat failed; trying again', { error })
    } finally {
      this.#underWay--
    }
  }
}
