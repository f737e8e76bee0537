/** Deletes expired executions from the database at intervals. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Logger } from '../options/logger.ts'
import type { Database } from './database/database.ts'
import { executionStatements } from './sql/execution-statements.ts'

/** How many executions one statement deletes at most. */
const BATCH_SIZE = 1000

/**
 * Deletes expired executions at intervals, in batches. Every process does so and skips the rows that another one
 * has locked, so no leader is needed.
 */
export class Retention {
  readonly #db: Database
  readonly #sql: ReturnType<typeof executionStatements>
  readonly #intervalMs: number
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<unknown> | undefined
  #stopped = false

  constructor(db: Database, schema: string, intervalMs: number, logger: Logger) {
    this.#db = db
    this.#sql = executionStatements(`"${schema}"`)
    this.#intervalMs = intervalMs
    this.#logger = logger
  }

  start(): void {
    runOutsideRequests(() => this.#scheduleSweep())
  }

  #scheduleSweep(): void {
    // Jitter, so that processes that were deployed together do not sweep at the same time.
    this.#timer = setTimeout(
      () => {
        this.#running = this.sweep().catch((error) => {
          this.#logger.warn('retention failed; trying again later', { error })
        })
        this.#running.finally(() => !this.#stopped && this.#scheduleSweep())
      },
      this.#intervalMs * (0.5 + Math.random()),
    )
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  /** Deletes expired executions and old rows of dead processes. @returns the number of executions */
  async sweep(): Promise<number> {
    const started = performance.now()
    let deleted = 0
    let batch: number
    do {
      batch = (await this.#db.query(this.#sql.deleteExpired, [BATCH_SIZE])).length
      deleted += batch
      if (batch > 0) {
        const ms = Math.round(performance.now() - started)
        this.#logger.debug('retention', { deleted, ms, more: batch === BATCH_SIZE })
      }
    } while (batch === BATCH_SIZE && !this.#stopped)
    await this.#db.query(this.#sql.deleteDeadProcesses, [])
    return deleted
  }
}
