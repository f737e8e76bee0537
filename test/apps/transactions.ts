/**
 * An app in a process of its own that writes one order for each key: at /step in a transaction of its own,
 * at /whole in the transaction that the request is. With `unique` in the body, a constraint of the app's
 * own forbids a second one. Settings come as JSON in PAWL and ROUTE.
 */
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { serve } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 20 })
pool.on('error', () => {})
const pawl = new Pawl({ database: pool, ...JSON.parse(process.env.PAWL ?? '{}') })
await pawl.start()
const route = { scope: () => 'shop', ...JSON.parse(process.env.ROUTE ?? '{}') }

const app = express()
app.use(express.json())

interface Client {
  query(sql: string, values: unknown[]): Promise<{ rows: { id: number }[] }>
}

async function writeOrder(tx: Client, key: string, unique: boolean): Promise<number> {
  const { rows } = await tx.query(
    'insert into orders (key, once, pid) values ($1, $2, $3) returning id',
    [key, unique ? key : null, process.pid],
  )
  return rows[0]?.id as number
}

app.post('/step', idempotency(pawl, { resumable: true, ...route }), async (req, res) => {
  const { execution, body } = req
  if (!execution) throw new Error('not protected')
  const id = await execution.transaction('write order', (tx) =>
    writeOrder(tx, execution.key, body.unique),
  )
  res.status(201).json({ id })
})

app.post('/whole', idempotency(pawl, { transaction: true, ...route }), async (req, res) => {
  const { execution, body } = req
  if (!execution) throw new Error('not protected')
  const id = await writeOrder(execution.tx, execution.key, body.unique)
  res.status(201).json({ id })
})

serve(app)
