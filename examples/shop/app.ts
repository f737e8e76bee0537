/**
 * The shop: an ordinary Express app that takes an order in four steps. One line of middleware makes it
 * safe to retry, and to kill. The same handler is mounted a second time without that line, so that one
 * can see what it is for.
 */
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express'
import { type Pawl, step, TerminalError, transaction } from 'pawl'
import { idempotency } from 'pawl/express'
import type { Pool } from 'pg'
import { z } from 'zod'
import { cancelOrder, recordOrder } from './orders.ts'
import { Payments } from './payments.ts'
import { release, reserve } from './stock.ts'

const orderRequest = z.object({
  cart: z.string().min(1).max(64),
  item: z.string().min(1).max(40),
  amount: z.int().positive(),
  card: z.string().max(40).default('good'),
  email: z.email().default('ada@example.com'),
})

export function createShop(parts: { pawl: Pawl; pool: Pool; providerUrl: string }): Express {
  const { pawl, pool } = parts
  const payments = new Payments(parts.providerUrl)

  const placeOrder: RequestHandler = async (req, res) => {
    const order = orderRequest.parse(req.body)

    await transaction('reserve stock', (tx) => reserve(tx, order.item), {
      compensate: (reservation) => release(pool, reservation),
    })

    const charge = await step(
      'charge card',
      // The key is the same in every attempt: asked again, the provider gives the same charge.
      ({ idempotencyKey }) => payments.charge(order, idempotencyKey),
      { compensate: (charge, { idempotencyKey }) => payments.refund(charge, idempotencyKey) },
    )

    // Without Pawl, attempts have no number.
    const attempt = req.execution?.attempt ?? null
    const placed = await transaction(
      'record order',
      (tx) => recordOrder(tx, { ...order, charge, attempt }),
      { compensate: ({ id }) => cancelOrder(pool, id) },
    )

    await step('send receipt', ({ idempotencyKey }) =>
      payments.sendReceipt(charge, order.email, idempotencyKey),
    )
    res.status(201).json(placed)
  }

  const safeToRetry = idempotency(pawl, {
    // Whose key it is: nobody else's can reveal this customer's orders. Yours may be `req.user.id`.
    scope: (req) => req.get('customer') ?? 'anonymous',
    // When the process dies, the next one finishes the order, whether or not the customer asks again.
    recover: true,
    // A second click waits for the first one's answer.
    wait: '10s',
  })

  const app = express()
  app.post('/orders', safeToRetry, express.json(), placeOrder)
  app.post('/naive/orders', express.json(), placeOrder)
  app.use(explain)
  pawl.recoverRequests(app)
  return app
}

/** A final answer of 400 or more: Pawl undoes what the order's steps have done before it leaves. */
const explain: ErrorRequestHandler = (error, _req, res, next) => {
  if (error instanceof z.ZodError) res.status(400).json({ error: z.prettifyError(error) })
  else if (error instanceof TerminalError) res.status(error.status).json({ error: error.message })
  else next(error)
}
