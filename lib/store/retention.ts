/** Deletes expired executions at intervals, unless an unfinished execution still wants their outcome. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Logger } from '../options/logger.ts'
import { classify, type Database } from './database/database.ts'
import { executionStatements } from './sql/execution-statements.ts'
import { processStatements } from './sql/process-statements.ts'

/** How many executions one statement looks at at most. */
const MAX_BATCH = 1000

/** By how much the batch grows again with each statement that succeeds. */
const BATCH_GROWTH = 20

/**
 * Deletes expired executions at intervals, in batches. Every process does so and skips the rows that another one
 * has locked, so no leader is needed.
 */
export class Retention {
  readonly #db: Database
  readonly #sql: Pick<ReturnType<typeof executionStatements>, 'deleteExpired'> &
    Pick<ReturnType<typeof processStatements>, 'deleteDeadProcesses'>
  readonly #intervalMs: number
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<unknown> | undefined
  #stopped = false
  /**
   * How many executions the next statement looks at at most. Journals may be so long that a larger batch runs into a
   * timeout: it is halved then, and grows slowly, so that few statements are in vain.
   */
  #batchSize = MAX_BATCH

  constructor(db: Database, schema: string, intervalMs: number, logger: Logger) {
    this.#db = db
    const quoted = `"${schema}"`
    const { deleteExpired } = executionStatements(quoted)
    const { deleteDeadProcesses } = processStatements(quoted)
    this.#sql = { deleteExpired, deleteDeadProcesses }
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
    let kept = 0
    for (let more = true; more && !this.#stopped; ) {
      const limit = this.#batchSize
      const batch = await this.#deleteBatch(limit)
      if (batch === null) continue
      deleted += batch.deleted
      kept += batch.kept
      const examined = batch.deleted + batch.kept
      more = examined === limit
      if (examined > 0) {
        const ms = Math.round(performance.now() - started)
        this.#logger.debug('retention', { deleted, kept, ms, more })
      }
    }
    await this.#db.query(this.#sql.deleteDeadProcesses, [])
    return deleted
  }

  /**
   * Deletes at most `limit` expired executions, and postpones those whose outcome an unfinished execution still wants.
   * @returns how many of each; null if that took too long, and fewer are tried next
   */
  async #deleteBatch(limit: number): Promise<{ deleted: number; kept: number } | null> {
    try {
      const rows = await this.#db.query(this.#sql.deleteExpired, [limit])
      const deleted = rows.filter(([isDeleted]) => isDeleted).length
      this.#batchSize = Math.min(limit + BATCH_GROWTH, MAX_BATCH)
      return { deleted, kept: rows.length - deleted }
    } catch (error) {
      // Not only statement_timeout: the client's own timeout, and a lack of memory, are no different.
      if (limit === 1 || classify(error) !== 'unavailable') throw error
      this.#batchSize = Math.ceil(limit / 2)
      this.#logger.debug('retention: deleting fewer at a time', { batch: this.#batchSize, error })
      return null
    }
  }
}
