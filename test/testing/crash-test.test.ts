import { setTimeout as sleep } from 'node:timers/promises'
import type { Pool } from 'pg'
import { beforeAll, describe, expect, it } from 'vitest'
import { StepInterruptedError, TerminalError } from '../../lib/index.ts'
import { crashTest } from '../../lib/testing/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { FakeProvider } from '../helpers/fake-provider.ts'
import { proofOnly } from '../helpers/proof.ts'
import { appWith, type Handler, insertOrder, itemsOf, ORDERS, SLOW } from './handlers.ts'

const { pool } = withDatabase()
beforeAll(() => pool.query(ORDERS))

const REQUEST = { path: '/orders', body: { item: 'book' } }

const provider = new FakeProvider()
const check = async ({ key }: { key: string }) => ({
  charged: provider.charged(key),
  refunded: provider.refunded(key),
  orders: await itemsOf(pool, key),
})
const options = { database: pool, check }

describe('crashTest() passes', SLOW, () => {
  const placeOrder: Handler = async (execution, req, res) => {
    const { key } = execution
    const charge = await execution.step('charge card', ({ idempotencyKey }) =>
      provider.charge(key, 10, idempotencyKey),
    )
    const id = await execution.transaction('record order', (tx) =>
      insertOrder(tx, key, req.body.item, charge.id),
    )
    await execution.step('send receipt', ({ idempotencyKey }) =>
      provider.charge(key, 0, idempotencyKey),
    )
    res.status(201).location(`/orders/${id}`).json({ id, charge: charge.id, at: execution.now() })
  }

  it('a handler of steps and a transaction, at every crash point', async () => {
    const log: string[] = []
    const report = await crashTest(
      appWith(() => placeOrder),
      REQUEST,
      {
        ...options,
        log: (line) => log.push(line),
      },
    )
    expect(report).toEqual({
      points: [
        'before the request is claimed',
        'after the request is claimed, before its handler runs',
        'before step "charge card" is recorded',
        'after step "charge card" is recorded',
        'before transaction "record order" begins',
        'before the journal entry of transaction "record order"',
        'before transaction "record order" commits',
        'after transaction "record order" has committed',
        'before step "send receipt" is recorded',
        'after step "send receipt" is recorded',
        'before the answer is recorded',
        'after the answer is recorded, before it is sent',
        'after the answer is sent, before it arrives',
      ],
      runs: 15,
    })
    expect(log[0]).toBe('POST /orders, undisturbed: 13 crash points')
    expect(log.slice(2)).toEqual(report.points.map((point) => `ok: crash ${point}`))
  })

  it('a handler without steps, whose second process dies as well', async () => {
    const log: string[] = []
    const makeApp = appWith(() => (_execution, _req, res) => res.json({}))
    const { points, runs } = await crashTest(makeApp, REQUEST, {
      ...options,
      crashes: 2,
      log: (line) => log.push(line),
    })
    expect(log).toContain(
      'ok: crash before the answer is recorded, and again before the answer is recorded',
    )
    expect(runs).toBe(log.length)
    expect(runs).toBeGreaterThan(points.length * 3)
  })

  proofOnly('a handler whose second process dies as well', async () => {
    const log: string[] = []
    const makeApp = appWith(() => async (execution, _req, res) => {
      const { key } = execution
      await execution.step('charge card', ({ idempotencyKey }) =>
        provider.charge(key, 10, idempotencyKey),
      )
      res.json({})
    })
    const { points, runs } = await crashTest(makeApp, REQUEST, {
      ...options,
      crashes: 2,
      log: (line) => log.push(line),
    })
    expect(points).toHaveLength(7)
    expect(log).toContain(
      'ok: crash after step "charge card" is recorded, and again before the execution is taken over',
    )
    expect(log).toContain(
      'ok: crash before step "charge card" is recorded, and again after step "charge card" is recorded',
    )
    expect(runs).toBe(log.length)
    expect(runs).toBeGreaterThan(9 + 7 * 4)
  })

  it('compensations: they run once each, however often the process dies between them', async () => {
    const makeApp = appWith(() => async (execution) => {
      const { key } = execution
      for (const amount of [1, 2]) {
        await execution.step(
          'charge',
          ({ idempotencyKey }) => provider.charge(key, amount, idempotencyKey),
          {
            compensate: ({ id }) => provider.refund(id),
          },
        )
      }
      await execution.transaction('record order', (tx) => insertOrder(tx, key, 'book'), {
        compensate: (id) => pool.query('delete from orders where id = $1', [id]),
      })
      await execution.step('ship', () => {
        throw new TerminalError('There is no such book.', { status: 409 })
      })
    })
    const { points } = await crashTest(makeApp, REQUEST, {
      database: pool,
      check: async (run) => {
        const seen = await check(run)
        expect(seen).toEqual({ charged: [], refunded: [1, 2], orders: [] })
        expect(run.answer.status).toBe(409)
        return seen
      },
    })
    for (const point of [
      'before the failure of step "ship" is recorded',
      'after the decision to give up is recorded',
      'before the compensation of "record order" is recorded',
      'after the compensation of "charge" (2) is recorded',
      'before the compensation of "charge" is recorded',
    ]) {
      expect(points).toContain(point)
    }
  })

  it('a request that is one transaction', async () => {
    const makeApp = appWith(
      () => async (execution, req, res) => {
        const id = await insertOrder(execution.tx, execution.key, req.body.item)
        await execution.step('charge card', ({ idempotencyKey }) =>
          provider.charge(execution.key, 10, idempotencyKey),
        )
        res.status(201).json({ id })
      },
      { transaction: true },
    )
    const { points } = await crashTest(makeApp, REQUEST, options)
    expect(points.filter((point) => point.includes('transaction'))).toEqual([
      'before the transaction of the request begins',
      'before the journal entry of the transaction of the request',
      'before the transaction of the request commits',
      'after the transaction of the request has committed',
    ])
  })

  it('an answer whose body is too large to be kept', async () => {
    const makeApp = appWith(
      () => async (execution, _req, res) => {
        await execution.transaction('record order', (tx) => insertOrder(tx, execution.key, 'book'))
        res.type('text').send('x'.repeat(2000))
      },
      { maxBody: '1kb', resumable: true },
    )
    const { points } = await crashTest(makeApp, REQUEST, options)
    expect(points).toContain('after the answer is recorded, before it is sent')
  })

  proofOnly('steps side by side', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const charges = await Promise.all(
        [1, 2, 3].map((amount) =>
          execution.step(`charge ${amount}`, async ({ idempotencyKey }) => {
            await sleep(amount * 5)
            return provider.charge(execution.key, amount, idempotencyKey)
          }),
        ),
      )
      res.json(charges.map(({ amount }) => amount))
    })
    const { points } = await crashTest(makeApp, REQUEST, {
      database: pool,
      check: ({ key }) => provider.charged(key).sort(),
    })
    expect(points.filter((point) => point.includes('step "charge'))).toHaveLength(6)
  })

  proofOnly('a handler that fails first, whose client retries', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const charge = await execution.step('charge card', ({ idempotencyKey }) =>
        provider.charge(execution.key, 10, idempotencyKey),
      )
      const tries = provider.ledger.filter(({ reference }) => reference === `try ${charge.id}`)
      await provider.charge(`try ${charge.id}`, 0)
      if (tries.length < 2) return res.status(503).end()
      res.json({ charge: charge.id })
    })
    const { points } = await crashTest(makeApp, REQUEST, options)
    expect(points).toContain('before the execution is given back without an outcome')
    expect(points).toContain('after the execution is taken over, before the handler runs again')
  })

  it('a step that runs at most once, where the handler finds out what it did', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const { key } = execution
      const charge = await execution
        .step('charge card', () => provider.charge(key, 10), { atMostOnce: true })
        .catch(async (error) => {
          if (!(error instanceof StepInterruptedError)) throw error
          return execution.step('ask', async () => {
            const made = provider.ledger.find(({ reference }) => reference === key)
            return made ?? provider.charge(key, 10)
          })
        })
      res.json({ charge: charge.id })
    })
    const { points } = await crashTest(makeApp, REQUEST, options)
    expect(points).toContain('before the intent of step "charge card" is recorded')
  })

  it('an app whose journal is encrypted, with the key where the app looks for it', async () => {
    const makeApp = appWith(
      () => async (execution, _req, res) => {
        const charge = await execution.step('charge card', ({ idempotencyKey }) =>
          provider.charge(execution.key, 3, idempotencyKey),
        )
        res.json(charge)
      },
      { key: (req) => req.body.key, resumable: true },
      { encryptionKeys: [{ id: 'a', key: new Uint8Array(32) }] },
    )
    const request = (key: string) => ({ path: '/orders', body: { key } })
    const { points } = await crashTest(makeApp, request, options)
    expect(points).toHaveLength(7)
    expect(provider.ledger.at(-1)?.reference).toMatch(/^crash-test-/)
  })

  it('what a process has open when it dies is closed, and rolled back', async () => {
    const makeApp = appWith((pool) => async (execution, req, res) => {
      const { key } = execution
      const client = await pool.connect()
      try {
        await client.query('begin')
        if ((await itemsOf(client as unknown as Pool, key)).length === 0) {
          await insertOrder(client as unknown as Pool, key, req.body.item)
        }
        await execution.step('charge card', ({ idempotencyKey }) =>
          provider.charge(key, 10, idempotencyKey),
        )
        await client.query('commit')
      } finally {
        client.release()
      }
      res.json({})
    })
    await crashTest(makeApp, REQUEST, options)
    expect(pool.totalCount).toBe(pool.idleCount)
  })
})
