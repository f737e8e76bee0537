/**
 * An order is taken by a request, and fulfilled by a workflow that the request starts. The request is
 * short, and answers as soon as the card is charged; the workflow takes as long as packing takes.
 */
import express, { type ErrorRequestHandler, type Express, type Response } from 'express'
import { step, TerminalError, transaction } from 'pawl'
import { idempotency } from 'pawl/express'
import { z } from 'zod'
import { readJournals } from '../support/journals.ts'
import { live, servePage } from '../support/pages.ts'
import type { AppParts } from '../support/serve.ts'
import { Bank } from './bank.ts'
import { Carrier } from './carrier.ts'
import { listOrders, recordOrder } from './orders.ts'
import { createTables } from './tables.ts'
import { defineFulfilment } from './workflow.ts'

const orderRequest = z.object({
  item: z.string().min(1).max(40),
  amount: z.int().positive(),
  address: z.string().min(1).max(100),
  card: z.string().max(40).default('good'),
})
const orderId = z.object({ id: z.uuid() })

export async function createApp({ pawl, pool }: AppParts): Promise<Express> {
  await createTables(pool)
  const bank = new Bank(pool)
  const fulfil = defineFulfilment(pawl, {
    pool,
    bank,
    carrier: new Carrier(pool),
    packing: process.env.PACKING ?? '5 seconds',
  })

  const app = express()
  servePage(app, new URL('./page/', import.meta.url), 'Order fulfilment')

  const safeToRetry = idempotency(pawl, { wait: '10s', recover: true })
  app.post('/orders', safeToRetry, express.json(), async (req, res) => {
    const order = orderRequest.parse(req.body)
    const charge = await step(
      'charge card',
      ({ idempotencyKey }) => bank.charge(order, idempotencyKey),
      { compensate: (charge) => bank.refund(charge) },
    )
    // The order and its workflow are there together, or neither is.
    const id = await transaction('record order', async (tx) => {
      const id = await recordOrder(tx, order, charge)
      const { item, address } = order
      await fulfil.start({ id, item, address, charge }, { key: id, tx })
      return id
    })
    accepted(res, id)
  })

  app.post('/orders/:id/cancel', async (req, res) => {
    const { id } = orderId.parse(req.params)
    const handle = fulfil.handle(id)
    await handle.status() // Throws if there is none.
    await handle.cancel()
    accepted(res, id)
  })

  function accepted(res: Response, id: string) {
    const status = `/operations/${fulfil.handle(id).id}`
    res.status(202).location(status).json({ id, status })
  }

  // How the workflow stands, and what came of it; it waits with `Prefer: wait=30`.
  app.get(
    '/operations/:id',
    pawl.statusHandler({
      // Here everybody may see every order; yours may compare with what `req.user` has ordered.
      authorize: (_req, { name }) => name === fulfil.name,
    }),
  )

  app.get(
    '/live',
    live(async () => ({
      pid: process.pid,
      orders: await listOrders(pool),
      journals: await readJournals(pool, 'fulfil order'),
    })),
  )
  app.get('/pid', (_req, res) => void res.send(`${process.pid}\n`))
  app.use(explain)
  pawl.recoverRequests(app)
  return app
}

const explain: ErrorRequestHandler = (error, _req, res, next) => {
  if (error instanceof z.ZodError) res.status(400).json({ error: z.prettifyError(error) })
  else if (error instanceof TerminalError) res.status(error.status).json({ error: error.message })
  else if (error.code === 'execution-missing') res.status(404).json({ error: 'No such order.' })
  else next(error)
}
