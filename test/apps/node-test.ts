/** A test of an app's, as node:test runs it. CHARGE_TWICE lets it fail. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import express from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import { Pawl } from '../../lib/index.ts'
import { crashTest } from '../../lib/testing/index.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string })
after(() => pool.end())

test('placing an order survives every crash', async () => {
  const charges = new Map<string, string>()
  const report = await crashTest(
    async ({ database, schema }) => {
      const pawl = new Pawl({ database, schema })
      await pawl.start()
      const app = express()
      app.post('/orders', idempotency(pawl, { resumable: true }), async (req, res) => {
        await req.execution?.step('charge card', ({ idempotencyKey, attempt }) => {
          const key = process.env.CHARGE_TWICE ? `${performance.now()} ${attempt}` : idempotencyKey
          charges.set(key, req.execution?.key as string)
        })
        res.status(201).json({ ordered: true })
      })
      return { app, stop: () => pawl.stop() }
    },
    { path: '/orders' },
    {
      database: pool,
      check: ({ key }) => [...charges.values()].filter((charged) => charged === key).length,
    },
  )
  assert.equal(report.points.length, 7)
})
