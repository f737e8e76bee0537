import type express from 'express'
import type { Express, Request, Response } from 'express'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import { idempotency } from '../../lib/adapters/express.ts'
import type { Execution, PawlOptions } from '../../lib/index.ts'
import { startApp, type TestApp } from './app.ts'
import type { TestDatabase } from './database.ts'

export type RecoveryHandler = (execution: Execution, req: Request, res: Response) => unknown

export interface RecoverySettings {
  url?: string
  express?: typeof express
  route?: IdempotencyOptions<Request>
  pawl?: Partial<PawlOptions>
  /** What comes before idempotency(). */
  before?: (app: Express) => void
  /** What comes after it. Default: `handler` at POST /. */
  routes?: (app: Express) => void
  handler?: RecoveryHandler
}

/**
 * Apps whose requests are finished without their clients. Their processes stay alive until the test
 * buries them.
 */
export function withRecovery(database: TestDatabase) {
  return {
    async start(settings: RecoverySettings): Promise<TestApp> {
      const { url = database.url, before, routes, handler } = settings
      const started = await startApp(
        url,
        undefined,
        (app) => {
          before?.(app)
          app.use((req, res, next) => middleware(req, res, next))
          if (handler) {
            app.post('/', (req, res) => handler(req.execution as Execution, req, res))
          }
          routes?.(app)
        },
        {
          mount: false,
          pawl: { processTimeout: '10 minutes', drainTimeout: 0, ...settings.pawl },
          ...(settings.express && { express: settings.express }),
        },
      )
      const middleware = idempotency(started.pawl, { recover: true, wait: 0, ...settings.route })
      started.pawl.recoverRequests(started.app)
      return started
    },

    /** All processes seem dead to the others, and what they ran is due. */
    async bury(): Promise<void> {
      await database.pool.query(
        `update pawl.processes set expires_at = 'epoch';
         update pawl.wakeups set due_at = 'epoch'`,
      )
    },

    /** What is to be tried again later is tried again now. */
    async hasten(): Promise<void> {
      await database.pool.query(
        `update pawl.wakeups w set due_at = 'epoch' from pawl.executions e
         where e.id = w.execution_id and e.status = 'released' and w.due_at < 'infinity';
         notify pawl, 'due'`,
      )
    },

    /** How the execution stands, with its wakeup. */
    async state(key: string) {
      const { rows } = await database.pool.query(
        `select l.status, l.attempt, l.response_status, w.due_at, w.max_attempts
         from pawl.execution_log l left join pawl.wakeups w on w.execution_id = l.id
         where l.key = $1`,
        [key],
      )
      return rows[0]
    },
  }
}

/** A handler that never answers. */
export const hang = () => new Promise<never>(() => {})
