/**
 * An app in a process of its own whose orders take long: the client gets 202, and `/operations/:id` tells
 * the rest. Each run of a step leaves a row in the table `runs`. A step waits for the advisory lock 1.
 */
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { serve } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 8 })
pool.on('error', () => {})
const pawl = new Pawl({ database: pool, processTimeout: '1s' })
await pawl.start()

const app = express()
app.get(
  '/operations/:id',
  pawl.statusHandler({ authorize: (req, { scope }) => req.headers['x-tenant'] === scope }),
)
app.use(
  idempotency(pawl, {
    scope: (req) => req.execution?.scope ?? (req.get('x-tenant') as string),
    recover: true,
    respondAsyncAfter: '50ms',
    statusUrl: '/operations/:id',
  }),
)
app.post('/orders', express.json(), async (req, res) => {
  const { execution } = req
  if (!execution) throw new Error('not protected')
  const run = (step: string) =>
    execution.step(step, async () => {
      const sql = 'insert into runs (step, pid) values ($1, $2)'
      await pool.query(sql, [step, process.pid])
      return { step, pid: process.pid }
    })
  const charge = await run('charge')
  await pool.query('select pg_advisory_xact_lock_shared(1)')
  const ship = await run('ship')
  res.status(201).json({ item: req.body.item, charge, ship, attempt: execution.attempt })
})
pawl.recoverRequests(app)

serve(app)
