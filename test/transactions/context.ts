import type { Request, Response } from 'express'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import type { Execution, PawlOptions } from '../../lib/index.ts'
import { startApp, type TestApp } from '../helpers/app.ts'
import type { TestDatabase } from '../helpers/database.ts'
import type { OpenOrm } from './orms/orm.ts'

/** What a case is given. The table `orders` is empty. */
export interface Context<Tx> {
  database: TestDatabase
  orm: OpenOrm<Tx>
  /** The same ORM on a database without Pawl's schema, and on one of another Pawl. */
  elsewhere: Record<'empty' | 'another', { orm: OpenOrm<Tx>; database: TestDatabase }>
  /** Starts an app with this handler at POST /orders. Its process counts as alive until `declareDead`. */
  start(handler: Handler, settings?: Settings): Promise<TestApp & { orders: string }>
}

export interface Settings {
  route?: IdempotencyOptions<Request>
  pawl?: Partial<PawlOptions>
  /** Gets the errors that the handler throws. */
  onError?: (error: unknown) => void
}

export type Handler = (
  req: Request & { execution: Execution },
  res: Response,
) => Promise<unknown> | unknown

/** A behaviour that every ORM must show. */
export interface Case {
  title: string
  run<Tx>(context: Context<Tx>): Promise<void>
}

export async function startOrders(
  url: string,
  handler: Handler,
  { route, pawl, onError }: Settings = {},
): Promise<TestApp & { orders: string }> {
  const settings = { pawl: { processTimeout: '10 minutes', ...pawl } } as const
  const app = await startApp(
    url,
    route,
    (app) => {
      app.post('/orders', (req, res) => handler(req as Parameters<Handler>[0], res))
      app.use((error: unknown, _req: Request, res: Response, _next: () => void) => {
        onError?.(error)
        res.status(500).json({ error: (error as Error).message })
      })
    },
    settings,
  )
  return { ...app, orders: `${app.url}/orders` }
}

/** The process that runs the key's execution seems dead to all others, while it goes on. */
export async function declareDead({ pool }: TestDatabase, key: string): Promise<void> {
  const { rowCount } = await pool.query(
    `update pawl.processes set expires_at = 'epoch'
     where id = (select owner from pawl.executions where key = $1)`,
    [key],
  )
  if (rowCount !== 1) throw new Error(`Nobody runs ${key}.`)
}

/** All orders, and which transaction wrote each. */
export async function allOrders({ pool }: TestDatabase) {
  const { rows } = await pool.query('select item, ticket, xmin::text as by from orders order by id')
  return rows as { item: string; ticket: string | null; by: string }[]
}

/** The recorded transactions of the key's execution, and which transaction wrote each. */
export async function allSteps({ pool }: TestDatabase, key: string) {
  const { rows } = await pool.query(
    `select l.name, l.kind, l.attempt, s.xmin::text as by
     from pawl.step_log l join pawl.steps s using (execution_id, name, occurrence)
     where l.key = $1 order by l.position`,
    [key],
  )
  return rows as { name: string; kind: string; attempt: number; by: string }[]
}
