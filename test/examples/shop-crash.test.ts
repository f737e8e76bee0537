import type { ChildProcess } from 'node:child_process'
import { Pawl } from 'pawl'
import { crashTest, type MakeApp } from 'pawl/testing'
import type { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createShop } from '../../examples/shop/app.ts'
import type { Charge } from '../../examples/shop/provider.ts'
import { createTables } from '../../examples/shop/tables.ts'
import { endChild, startChild, whenReady } from '../../examples/support/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { proofOnly } from '../helpers/proof.ts'

const { pool } = withDatabase()
let provider: ChildProcess
let providerUrl: string

beforeAll(async () => {
  await createTables(pool)
  provider = startChild(new URL('../../examples/shop/provider.ts', import.meta.url), { PACE: '0' })
  providerUrl = (await whenReady<{ url: string }>(provider)).url
})
afterAll(() => endChild(provider))

const shop: MakeApp<Pool> = async ({ database, schema }) => {
  const pawl = new Pawl({ database, schema })
  await pawl.start()
  const app = createShop({ pawl, pool: database, providerUrl })
  return { app, stop: () => pawl.stop() }
}

/** One customer's order; the cart is named after the key, so that the books show whose it is. */
const orderOf = (more: object) => (key: string) => ({
  path: '/orders',
  headers: { 'Idempotency-Key': key, Customer: 'ada' },
  body: { cart: key, item: 'Moka pot', amount: 3400, ...more },
})

/** What the order has left in the shop's tables and with the provider. */
async function books(key: string) {
  const orders = await pool.query(
    'select item, amount, cancelled from example_shop.orders where cart = $1',
    [key],
  )
  const stock = await pool.query(
    `select units, (select count(*)::int from example_shop.reservations) as reserved
     from example_shop.stock where item = 'Moka pot'`,
  )
  const response = await fetch(`${providerUrl}/charges?reference=${key}`)
  const charges = (await response.json()) as Charge[]
  return {
    orders: orders.rows,
    stock: stock.rows[0],
    charges: charges.map(({ amount, refunded, receipts }) => ({
      amount,
      refunded,
      receipts: receipts.length,
    })),
  }
}

/** Every run begins with a full stock, and must leave the books as expected. */
async function crashOrders(more: object, expected: object) {
  let last: object | undefined
  const { points } = await crashTest(shop, orderOf(more), {
    database: pool,
    reset: async () => {
      await pool.query('update example_shop.stock set units = 1000')
      await pool.query('delete from example_shop.reservations')
    },
    check: async ({ key }) => {
      last = await books(key)
      return last
    },
    // An order says which attempt has recorded it.
    outcome: ({ status, body }) => ({ status, error: (body as { error?: string }).error }),
  })
  expect(last).toEqual(expected) // And so was every other: they do not differ.
  return points
}

describe('the example shop, killed at every point of its journal', { timeout: 180_000 }, () => {
  it('takes one order, charges once and sends one receipt', async () => {
    const points = await crashOrders(
      {},
      {
        orders: [{ item: 'Moka pot', amount: 3400, cancelled: false }],
        stock: { units: 999, reserved: 1 },
        charges: [{ amount: 3400, refunded: false, receipts: 1 }],
      },
    )
    // Before each step is recorded, at least.
    for (const step of ['reserve stock', 'charge card', 'record order', 'send receipt']) {
      expect(points.join()).toContain(`"${step}"`)
    }
  })

  proofOnly('gives back what it has reserved when the card is declined', async () => {
    await crashOrders(
      { card: 'declined' },
      { orders: [], stock: { units: 1000, reserved: 0 }, charges: [] },
    )
  })

  proofOnly('cancels, refunds and gives back when the last step fails for good', async () => {
    await crashOrders(
      { email: 'nobody@example.com' },
      {
        orders: [{ item: 'Moka pot', amount: 3400, cancelled: true }],
        stock: { units: 1000, reserved: 0 },
        charges: [{ amount: 3400, refunded: true, receipts: 0 }],
      },
    )
  })
})
