/** An app whose Pawl goes another way to the database than its handlers. */
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { serve } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string })
const pawl = new Pawl({
  database: process.env.STORE_URL as string,
  ...JSON.parse(process.env.PAWL ?? '{}'),
})
await pawl.start()
const app = express()
app.use(express.json())
app.use(idempotency(pawl, JSON.parse(process.env.ROUTE ?? '{}')))
app.post('/orders', async (req, res) => {
  await pool.query('insert into runs (key, attempt, pid) values ($1, $2, $3)', [
    req.get('idempotency-key') ?? 'none',
    req.execution?.attempt ?? 0,
    process.pid,
  ])
  res.status(201).json({ protected: req.execution !== undefined })
})
serve(app)
