import Stripe from 'stripe'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { type Fault, type FaultyProxy, startFaultyProxy } from '../helpers/faulty-proxy.ts'

const database = withDatabase()
const proxies: FaultyProxy[] = []

beforeAll(() =>
  database.pool.query('create table charges (id text primary key, amount int not null)'),
)
afterAll(async () => {
  await Promise.all(proxies.map((proxy) => proxy.close()))
  await database.pool.query('drop table charges')
})

/**
 * The official library, as it comes, pointed at an app with Pawl.
 * @param faults of its requests, in order; then all goes well
 * @param failures how many attempts the handler itself answers with 500, before it charges
 */
async function start(faults: Fault[], { failures = 0 } = {}) {
  const keys: unknown[] = []
  let charges = 0
  const server = await startApp(
    database.url,
    { scope: () => 'acct_1', resumable: true },
    (app, express) => {
      app.post('/v1/payment_intents', express.urlencoded({ extended: true }), async (req, res) => {
        if ((req.execution?.attempt ?? 0) <= failures) {
          res.status(500).json({ error: { type: 'api_error', message: 'Try again.' } })
          return
        }
        const id = `pi_${req.execution?.key}_${++charges}`
        await database.pool.query('insert into charges values ($1, $2)', [id, req.body.amount])
        res.json({ id, object: 'payment_intent', amount: Number(req.body.amount) })
      })
    },
  )
  const proxy = await startFaultyProxy(server.url, (request) => {
    keys.push(request.headers['idempotency-key'])
    return faults.shift() ?? 'none'
  })
  proxies.push(proxy)
  const stripe = new Stripe('sk_test_pawl', {
    host: '127.0.0.1',
    port: proxy.port,
    protocol: 'http',
    maxNetworkRetries: 4,
    timeout: faults.includes('slow') ? 1500 : 20_000,
    telemetry: false,
  })
  return { stripe, proxy, keys, charges: () => charges }
}

describe('the official stripe library, unchanged', () => {
  const retried: Fault[] = ['reset before', 'reset after', '503 before', '502 after', 'slow']

  it.each(retried)('charges once through: %s', async (fault) => {
    const { stripe, proxy, keys, charges } = await start([fault])
    const intent = await stripe.paymentIntents.create({ amount: 2000, currency: 'eur' })
    expect(intent).toMatchObject({ amount: 2000, object: 'payment_intent' })
    expect(proxy.happened.get(fault)).toBe(1)
    // It has repeated its key, and the one charge is the one it was told of.
    expect(keys).toHaveLength(2)
    expect(keys[1]).toBe(keys[0])
    expect(keys[0]).toMatch(/^stripe-node-retry-/)
    expect(charges()).toBe(1)
    const stored = await database.pool.query('select id from charges where id = $1', [intent.id])
    expect(stored.rowCount).toBe(1)
    const { headers } = intent.lastResponse as unknown as { headers: Record<string, string> }
    const reached = fault !== 'reset before' && fault !== '503 before'
    expect(headers['idempotent-replayed']).toBe(reached ? 'true' : undefined)
  })

  it('charges once through several of them in a row', async () => {
    const { stripe, charges, keys } = await start(['reset after', '502 after', 'reset before'])
    await stripe.paymentIntents.create({ amount: 700, currency: 'eur' })
    expect(keys).toHaveLength(4)
    expect(charges()).toBe(1)
  })

  it('charges once when the answer breaks off, which the library leaves to its caller', async () => {
    const { stripe, charges, keys } = await start(['reset in the middle'])
    const create = () =>
      stripe.paymentIntents.create({ amount: 800, currency: 'eur' }, { idempotencyKey: 'order-6' })
    await expect(create()).rejects.toMatchObject({ type: 'StripeConnectionError' })
    expect(keys).toHaveLength(1)
    expect(await create()).toMatchObject({ amount: 800 })
    expect(charges()).toBe(1)
  })

  it('charges once when the app itself answers 500 at first', async () => {
    const { stripe, charges, keys } = await start([], { failures: 2 })
    const intent = await stripe.paymentIntents.create({ amount: 900, currency: 'eur' })
    expect(intent.amount).toBe(900)
    expect(keys).toHaveLength(3)
    expect(charges()).toBe(1)
  })

  it('charges once for each call, many at once', async () => {
    const calls = 40
    const faults = Array.from({ length: calls }, (_, n) => retried[n % 4] as Fault)
    const { stripe, charges } = await start(faults)
    const intents = await Promise.all(
      Array.from({ length: calls }, (_, n) =>
        stripe.paymentIntents.create({ amount: 100 + n, currency: 'eur' }),
      ),
    )
    expect(intents.map(({ amount }) => amount)).toEqual(intents.map((_, n) => 100 + n))
    expect(new Set(intents.map(({ id }) => id)).size).toBe(calls)
    expect(charges()).toBe(calls)
  })

  it('gets the same charge for a key of its own, and none for its reuse', async () => {
    const { stripe, charges } = await start([])
    const create = (amount: number) =>
      stripe.paymentIntents.create({ amount, currency: 'eur' }, { idempotencyKey: 'order-7' })
    const first = await create(500)
    expect((await create(500)).id).toBe(first.id)
    await expect(create(600)).rejects.toMatchObject({
      rawType: 'idempotency_error',
      statusCode: 422,
      code: 'request-mismatch',
    })
    expect(charges()).toBe(1)
  })
})
