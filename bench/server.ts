/** One variant of the same small endpoint, in a process of its own. Argument: the variant. */
import { createRequire } from 'node:module'
import express from 'express'
import { idempotency } from '../dist/adapters/express.js'
import { Pawl } from '../dist/index.js'

const require = createRequire(import.meta.url)
const items = Array.from({ length: 5 }, (_, i) => ({ sku: `sku-${i}`, qty: i + 1, price: 333 }))
let orders = 0

const app = express()
app.disable('x-powered-by')
let stop = async () => {}

async function mountPawl() {
  const pawl = new Pawl({ database: process.env.DATABASE_URL as string, migrate: true })
  await pawl.start()
  stop = () => pawl.stop()
  return idempotency(pawl, { scope: () => 'bench' })
}

const variants: Record<string, () => Promise<void> | void> = {
  bare: () => {
    app.use(express.json())
  },
  pawl: async () => {
    app.use(express.json(), await mountPawl())
  },
  'pawl-before-parser': async () => {
    app.use(await mountPawl(), express.json())
  },
  // Peers, where they are installed (npm install --no-save express-idempotency …).
  'express-idempotency-memory': () => {
    const { idempotency: peer } = require('express-idempotency')
    app.use(express.json(), peer())
  },
}
await variants[process.argv[2] as string]?.()

app.post('/orders', (req, res) => {
  if (process.argv[2] === 'express-idempotency-memory') {
    const { getSharedIdempotencyService } = require('express-idempotency')
    if (getSharedIdempotencyService().isHit(req)) return
  }
  const { amount, currency, customer } = req.body ?? {}
  res
    .status(201)
    .json({ id: `ord_${++orders}`, status: 'created', amount, currency, customer, items })
})
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as { port: number }).port}`)
})
process.once('SIGTERM', async () => {
  server.close()
  server.closeAllConnections()
  await stop()
  process.exit(0)
})
