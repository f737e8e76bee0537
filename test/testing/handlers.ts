import express, { type RequestHandler } from 'express'
import type { Pool } from 'pg'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { type Execution, Pawl, type PawlOptions } from '../../lib/index.ts'
import type { MakeApp } from '../../lib/testing/index.ts'

export type Handler = (execution: Execution, ...rest: Parameters<RequestHandler>) => unknown

/** A process with one route, POST /orders, whose handler is given the pool of that process. */
export function appWith(
  handler: (pool: Pool) => Handler,
  options: IdempotencyOptions<express.Request> = { resumable: true },
  pawlOptions: Partial<PawlOptions> = {},
): MakeApp<Pool> {
  return async ({ database, schema }) => {
    const pawl = new Pawl({ database, schema, ...pawlOptions })
    await pawl.start()
    const handle = handler(database)
    const app = express().use(express.json())
    app.set('env', 'test') // Express' final handler then logs no errors.
    app.post('/orders', idempotency(pawl, options), async (req, res, next) => {
      await handle(req.execution as Execution, req, res, next)
    })
    return { app, stop: () => pawl.stop() }
  }
}

/** Dozens of processes start and die in one test. */
export const SLOW = { timeout: 180_000 }

export const ORDERS = `create table orders (
  id int generated always as identity, key text not null, item text not null, charge text)`

export async function insertOrder(
  client: Pick<Pool, 'query'>,
  key: string,
  item: string,
  charge: string | null = null,
): Promise<number> {
  const { rows } = await client.query(
    'insert into orders (key, item, charge) values ($1, $2, $3) returning id',
    [key, item, charge],
  )
  return rows[0].id
}

export async function itemsOf(pool: Pool, key: string): Promise<string[]> {
  const { rows } = await pool.query('select item from orders where key = $1 order by id', [key])
  return rows.map(({ item }) => item)
}
