/** An app of a user: each order is a keyed request with a step, and starts a workflow. Prints its URL. */
import express from 'express'
import { Pawl } from 'pawl'
import { idempotency } from 'pawl/express'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
pool.on('error', () => {})
const pawl = new Pawl({ database: pool, instance: process.env.INSTANCE })
const ship = pawl.workflow('ship', async (execution, order) => {
  const box = await execution.step('pack', () => `box of ${order}`)
  await execution.sleep(200)
  return box
})
await pawl.start()

const app = express()
app.use(express.json())
app.use(idempotency(pawl, { scope: () => 'shop', resumable: true }))
app.post('/orders', async (req, res) => {
  const order = await req.execution.step('order', () => `order ${req.execution.key}`)
  await ship.start(order, { key: req.execution.key })
  res.status(201).json({ order, pid: process.pid })
})
app.get('/boxes/:key', async (req, res) => {
  const handle = await ship.start(`order ${req.params.key}`, { key: req.params.key })
  res.json(await handle.result({ timeout: '30s' }))
})
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
process.once('SIGTERM', async () => {
  server.close()
  server.closeIdleConnections()
  await pawl.stop()
  await pool.end()
  process.exit(0)
})
