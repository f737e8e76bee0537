import type { Logger } from '../options/logger.ts'
import type { Database } from './database/database.ts'
import { statements } from './sql/execution-statements.ts'

const BATCH = 1000

/**
 * Deletes what has expired, in bounded batches, from every process: each takes rows that no other
 * holds, so no leader is needed.
 */
export class Retention {
  readonly #db: Database
  readonly #sql: ReturnType<typeof statements>
  readonly #intervalMs: number
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #running: Promise<unknown> = Promise.resolve()
  #stopped = false

  constructor(db: Database, schema: string, intervalMs: number, logger: Logger) {
    this.#db = db
    this.#sql = statements(`"${schema}"`)
    this.#intervalMs = intervalMs
    this.#logger = logger
  }

  start(): void {
    // Processes that were deployed together should not sweep together.
    this.#timer = setTimeout(
      () => {
        this.#running = this.sweep().catch((error) => {
          this.#logger.warn('retention failed; trying again later', { error })
        })
        this.#running.finally(() => !this.#stopped && this.start())
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

  /** Deletes everything that has expired by now. Resolves to the number of executions deleted. */
  async sweep(): Promise<number> {
    const started = performance.now()
    let deleted = 0
    let batch: number
    do {
      batch = (await this.#db.query(this.#sql.deleteExpired, [BATCH])).length
      deleted += batch
      if (batch > 0) {
        const ms = Math.round(performance.now() - started)
        this.#logger.debug('retention', { deleted, ms, more: batch === BATCH })
      }
    } while (batch === BATCH && !this.#stopped)
    await this.#db.query(this.#sql.deleteDead, [])
    return deleted
  }
}
