/** Registers this process in the database and keeps its heartbeat current. */

import { hostname } from 'node:os'
import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Logger } from '../options/logger.ts'
import type { Database, Row } from './database/database.ts'
import type { Value } from './database/pg-array.ts'
import { retryConflicts } from './database/retry-conflicts.ts'
import { processStatements } from './sql/process-statements.ts'

export interface ProcessOptions {
  id: string
  /** The stable name of this process across restarts, if the app gave one. */
  instance: string | null
  version: string
  /** The process counts as dead after this long without a heartbeat, in ms. */
  timeoutMs: number
}

/**
 * Keeps this process's row in the database current, which tells the other processes that it is alive. There is one
 * row and one heartbeat for all executions of the process. Three heartbeats fit into the timeout, and none waits
 * for the one before, so that one lost statement or an exhausted pool does not make the process look dead.
 */
export class Heartbeat {
  readonly #db: Database
  readonly #sql: ReturnType<typeof processStatements>
  readonly #options: ProcessOptions
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #inFlight = 0
  /** JSON: the handlers that this process runs, by the name of their queue. */
  #queues = '{}'
  /** What the process's row says of them. */
  #storedQueues = '{}'
  #stopped = false

  constructor(db: Database, schema: string, options: ProcessOptions, logger: Logger) {
    this.#db = db
    this.#sql = processStatements(`"${schema}"`)
    this.#options = options
    this.#logger = logger
  }

  /** Registers the process and starts the heartbeat. */
  async start(): Promise<void> {
    const retired = await this.#register(this.#options.instance)
    if (retired > 0) {
      this.#logger.debug(`retired ${retired} predecessor(s)`, { instance: this.#options.instance })
    }
    const intervalMs = this.#options.timeoutMs / 3
    this.#timer = runOutsideRequests(() => setInterval(() => this.#beat(), intervalMs))
    this.#timer.unref()
  }

  /**
   * Tells the other processes which handlers of queues this process runs, unless the row says it already.
   * @param queues the handlers, by the name of their queue
   */
  async announceQueues(queues: Record<string, readonly string[]>): Promise<void> {
    const json = JSON.stringify(queues)
    this.#queues = json
    if (json === this.#storedQueues) return
    await this.#send(this.#sql.announceQueues, [this.#options.id, json])
    this.#storedQueues = json
  }

  /** Deletes the process's row, so that others can take over its executions at once. */
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
    const queues = this.#queues
    const values = [id, instance, hostname(), process.pid, version, timeoutMs, queues]
    const retired = await this.#send(this.#sql.register, values)
    this.#storedQueues = queues
    return retired.length
  }

  /** Processes of one deploy register at the same time, and conflict where the role's default is serializable. */
  #send(sql: string, values: readonly Value[]): Promise<Row[]> {
    return retryConflicts(() => this.#db.urgent(sql, values))
  }

  async #beat(): Promise<void> {
    // The database does not answer; more heartbeats would only queue up.
    if (this.#inFlight >= 3) return
    this.#inFlight++
    try {
      const { id, timeoutMs } = this.#options
      const rows = await this.#send(this.#sql.heartbeat, [id, timeoutMs])
      if (rows.length === 0 && !this.#stopped) {
        // Another process considered this one dead, or was started under the same instance name. Register
        // again, without retiring any other process. There is still at most one outcome per execution.
        this.#logger.warn('another process had considered this one dead; registering again', {
          process: this.#options.id,
          instance: this.#options.instance,
        })
        await this.#register(null)
        if (this.#stopped) await this.#unregister() // stop() was called meanwhile.
      }
    } catch (error) {
      this.#logger.warn('heartbeat failed; trying again', { error })
    } finally {
      this.#inFlight--
    }
  }
}
