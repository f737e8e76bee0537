import { createServer } from 'node:http'
import express from 'express'
import fastify from 'fastify'
import { Pool } from 'pg'
import { beforeAll, describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { idempotency as fastifyIdempotency } from '../../lib/adapters/fastify/fastify.ts'
import { Pawl } from '../../lib/index.ts'
import { PGlite as OwnPGlite } from '../../lib/store/database/pglite.ts'
import { migrate } from '../../lib/store/migrate.ts'
import { crashTest, type ProcessResources } from '../../lib/testing/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { freePort } from '../helpers/free-port.ts'
import { openPglite } from '../helpers/pglite.ts'
import { proofOnly } from '../helpers/proof.ts'
import { appWith, insertOrder, itemsOf, ORDERS, SLOW } from './handlers.ts'

const { pool, url } = withDatabase()
const REQUEST = { path: '/orders', body: { item: 'book' } }

beforeAll(() => pool.query(ORDERS))

describe('crashTest() works', SLOW, () => {
  proofOnly('on PGlite, in a schema of another name', async () => {
    const pglite = await openPglite()
    await pglite.exec('create table books (key text not null)')
    await migrate(new OwnPGlite(pglite, 10_000), 'safe')
    const insert = 'insert into books (key) values ($1)'
    const { points } = await crashTest(
      async ({ database, schema }) => {
        const pawl = new Pawl({ database, schema })
        await pawl.start()
        const app = express()
        app.post('/orders', idempotency(pawl, { resumable: true }), async (req, res) => {
          const { key } = req.execution!
          await req.execution?.transaction('record order', (tx) => tx.query(insert, [key]))
          // Of the app's own, rolled back if the process dies inside.
          await database.transaction(async (tx) => {
            const { rows } = await tx.query('select 1 from books where key = $1', [key])
            if (rows.length === 1) await tx.query(insert, [key])
            await Promise.resolve()
          })
          res.json({ ordered: true })
        })
        return { app, stop: () => pawl.stop() }
      },
      { path: '/orders' },
      {
        database: pglite,
        schema: 'safe',
        check: async ({ key }) =>
          (await pglite.query('select key from books where key = $1', [key])).rows.length,
      },
    )
    expect(points).toContain('before transaction "record order" commits')
    await pglite.close()
  })

  it('with a pool of one connection', async () => {
    const one = new Pool({ connectionString: url, max: 1 })
    const makeApp = appWith((pool) => async (execution, req, res) => {
      await execution.transaction('record order', (tx) =>
        insertOrder(tx, execution.key, req.body.item),
      )
      res.json(await itemsOf(pool, execution.key))
    })
    const check = ({ key }: { key: string }) => itemsOf(one, key)
    await crashTest(makeApp, REQUEST, { database: one, check })
    await one.end()
  })

  it('with an app that listens by itself, whose port is freed by kill', async () => {
    const port = await freePort()
    let killed = 0
    const { points } = await crashTest(
      async ({ database, schema }) => {
        const pawl = new Pawl({ database, schema })
        await pawl.start()
        const app = express().post('/', idempotency(pawl, { resumable: true }), (_req, res) => {
          res.send('hello')
        })
        const server = createServer(app)
        await new Promise<void>((resolve) => {
          server.listen(port, '127.0.0.1', resolve)
        })
        const kill = () => {
          killed++
          server.close()
          server.closeAllConnections()
        }
        const stop = async () => {
          server.close()
          await pawl.stop()
        }
        return { app: `http://127.0.0.1:${port}`, stop, kill }
      },
      { path: '/' },
      { database: pool, check: () => null },
    )
    expect(killed).toBe(points.length)
  })

  it('with Fastify, whose instance is an app', async () => {
    const charged: string[] = []
    const start = (safe: boolean) =>
      crashTest(
        async ({ database, schema }: ProcessResources<Pool>) => {
          const pawl = new Pawl({ database, schema })
          await pawl.start()
          const app = fastify()
          await app.register(fastifyIdempotency, { pawl, resumable: true })
          app.post('/orders', async (request, reply) => {
            const { step, key, id } = request.execution!
            if (!safe) charged.push(key)
            await step('charge card', () => safe && !charged.includes(key) && charged.push(key))
            return reply.code(201).send({ id })
          })
          const stop = async () => {
            await app.close()
            await pawl.stop()
          }
          return { app, stop }
        },
        REQUEST,
        {
          database: pool,
          check: ({ key }) => charged.filter((charge) => charge === key).length,
        },
      )
    expect((await start(true)).points).toHaveLength(7)
    await expect(start(false)).rejects.toThrow('Crash before step "charge card" is recorded')
  })

  proofOnly('with routes that recover by themselves', async () => {
    const { points } = await crashTest(
      async ({ database, schema }) => {
        const pawl = new Pawl({ database, schema })
        await pawl.start()
        const app = express().use(express.json())
        app.post('/orders', idempotency(pawl, { recover: true }), async (req, res) => {
          const { transaction, key } = req.execution!
          await transaction('record order', (tx) => insertOrder(tx, key, req.body.item))
          res.json({})
        })
        pawl.recoverRequests(app)
        return { app, stop: () => pawl.stop() }
      },
      REQUEST,
      { database: pool, check: ({ key }) => itemsOf(pool, key) },
    )
    expect(points).toContain('after transaction "record order" has committed')
  })
})
