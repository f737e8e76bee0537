/**
 * The shop: an ordinary Express app that charges a card and records an order. One line of
 * middleware makes it safe to retry; the same handler is mounted a second time without that line,
 * so that one can see what it is for.
 */
import { randomUUID } from 'node:crypto'
import express, { type RequestHandler } from 'express'
import { Pawl } from 'pawl'
import { idempotency } from 'pawl/express'
import { Pool } from 'pg'
import { z } from 'zod'
import { endWithParent, tellParent } from './parent.ts'

const { DATABASE_URL, PROVIDER_URL, SHOP_PORT } = z
  .object({ DATABASE_URL: z.string(), PROVIDER_URL: z.url(), SHOP_PORT: z.coerce.number() })
  .parse(process.env)

const pool = new Pool({ connectionString: DATABASE_URL })
const pawl = new Pawl({
  database: pool,
  // The same name after every restart: whatever the killed process left unfinished is free to be
  // resumed at once, without waiting for its heartbeat to expire.
  instance: 'shop',
  migrate: true,
  processTimeout: '15s',
})
await pawl.start()

const safeToRetry = idempotency(pawl, {
  // Whose key it is: nobody else's can reveal this customer's orders. Yours may be `req.user.id`.
  scope: (req) => req.get('customer') ?? 'anonymous',
  // placeOrder may be run again after a crash, since all it does goes by the execution's id.
  resumable: true,
  // A second click waits for the first one's answer.
  wait: '10s',
})

const orderRequest = z.object({
  cart: z.string().min(1).max(40),
  item: z.string().min(1).max(40),
  amount: z.int().positive(),
})

const placeOrder: RequestHandler = async (req, res) => {
  const { success, data: order, error } = orderRequest.safeParse(req.body)
  if (!success) {
    res.status(400).json({ error: z.prettifyError(error) })
    return
  }
  // The same id in every attempt and for every retry. Without Pawl there is none: each call is new,
  // and the shop cannot know better.
  const id = req.execution?.id
  const charge = await chargeCard(order, id && `charge-${id}`)
  const attempt = req.execution?.attempt ?? null
  res.status(201).json(await recordOrder({ ...order, id: id ?? randomUUID(), charge, attempt }))
}

const app = express()
app.use(express.json())
app.post('/orders', safeToRetry, placeOrder)
app.post('/naive/orders', placeOrder)

type OrderRequest = z.infer<typeof orderRequest>
type Order = OrderRequest & { id: string; charge: string; attempt: number | null }

/** Asked again with the same key, the provider gives the same charge instead of a second one. */
async function chargeCard(order: OrderRequest, key: string | undefined): Promise<string> {
  const response = await fetch(`${PROVIDER_URL}/charges`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key && { 'idempotency-key': key }) },
    body: JSON.stringify({ reference: order.cart, amount: order.amount }),
  })
  if (!response.ok) throw new Error(`The payment provider answered ${response.status}`)
  return z.object({ id: z.string() }).parse(await response.json()).id
}

/** An earlier attempt may have got as far as this; then its order is the order. */
async function recordOrder({ id, cart, item, amount, charge, attempt }: Order) {
  await pool.query(
    `insert into example_shop.orders (id, cart, item, amount, charge, attempt, pid)
     values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing`,
    [id, cart, item, amount, charge, attempt, process.pid],
  )
  const { rows } = await pool.query(
    'select id, item, amount, charge, attempt from example_shop.orders where id = $1',
    [id],
  )
  return rows[0]
}

const server = app.listen(SHOP_PORT, '127.0.0.1', (error) => {
  if (error) throw error
  tellParent({ ready: true })
})

// A deployment, or Ctrl-C: finish what is running, give the rest back to be resumed by the next
// process, and only then let go of the database.
async function stop() {
  server.close()
  await pawl.stop()
  server.closeAllConnections()
  await pool.end()
  process.exit()
}
process.once('SIGTERM', stop)
endWithParent(stop)
