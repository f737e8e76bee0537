import { randomUUID } from 'node:crypto'
import type { PGlite } from '@electric-sql/pglite'
import type { Request, Response } from 'express'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../../../lib/adapters/express.ts'
import { type Execution, Pawl } from '../../../lib/index.ts'
import { openDatabase } from '../../../lib/store/database/open-database.ts'
import { ExecutionStore } from '../../../lib/store/execution-store.ts'
import { silent, startApp } from '../../helpers/app.ts'
import { openPglite } from '../../helpers/pglite.ts'
import { freshKey, request } from '../../helpers/request.ts'
import { claimOf } from '../../helpers/store.ts'

type Handler = (execution: Execution, res: Response) => unknown
type Tx = Pick<PGlite, 'query'>

let engine: PGlite
// A whole PostgreSQL in WebAssembly is compiled: on a busy machine that takes a minute.
beforeAll(async () => {
  engine = await openPglite()
}, 240_000)
afterAll(() => engine.close())

/** Each test in a schema of its own: PGlite takes its time to start. */
const start = (schema: string, options = {}, slow = 0) => {
  let runs = 0
  return startApp(
    engine,
    options,
    (app, express) => {
      app.use(express.json())
      app.post('/orders', async (req, res) => {
        const run = ++runs
        if (slow) await new Promise((resolve) => setTimeout(resolve, slow))
        res
          .status(req.body.status ?? 201)
          .set('X-Run', String(run))
          .send(Buffer.from([0, 1, 255, run]))
      })
    },
    { pawl: { schema, migrate: true } },
  )
}

describe('Pawl on PGlite', () => {
  it('raises synchronous_commit for its own transactions, and leaves the session as it was', async () => {
    await engine.query('set synchronous_commit = off')
    const { url } = await start('durable')
    expect((await request(`${url}/orders`, { key: freshKey(), body: {} })).status).toBe(201)
    const setting = `select current_setting('synchronous_commit') as setting`
    expect((await engine.query(setting)).rows).toEqual([{ setting: 'off' }])
    const db = await openDatabase(engine, 5000)
    const probed = Object.assign(Object.create(db), {
      query: (...args: Parameters<typeof db.query>) =>
        db.transaction(async (query) => {
          const rows = await query(...args)
          expect(await query(setting, [])).toEqual([['on']])
          return rows
        }),
    })
    await new ExecutionStore(probed, 'durable', randomUUID(), 1000).claim(claimOf())
    await engine.query('reset synchronous_commit')
  })

  it('runs a request once, replays it byte for byte, and tells other requests apart', async () => {
    const { url, pawl } = await start('flow')
    const key = freshKey()
    const send = (body: object) => request(`${url}/orders`, { key, body })
    const first = await send({ a: '{"\\,NULL}' })
    const second = await send({ a: '{"\\,NULL}' })
    expect(first.status).toBe(201)
    expect([...first.body]).toEqual([0, 1, 255, 1])
    expect(second.body).toEqual(first.body)
    expect(second.headers['x-run']).toBe('1')
    expect(second.headers['idempotent-replayed']).toBe('true')
    expect((await send({ a: 2 })).status).toBe(422)
    expect(await pawl.find({ key })).toMatchObject({
      status: 'done',
      attempt: 1,
      responseStatus: 201,
    })
  })

  it('runs concurrent duplicates once, of two processes too', async () => {
    const [one, two] = [await start('crowd', {}, 100), await start('crowd', {}, 100)]
    const key = freshKey()
    const answers = await Promise.all(
      [one, two, one, two, one].map(({ url }) => request(`${url}/orders`, { key, body: {} })),
    )
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
  })

  it('gives back, finds and releases', async () => {
    const { url, pawl } = await start('states', { resumable: true })
    const key = freshKey()
    expect((await request(`${url}/orders`, { key, body: { status: 500 } })).status).toBe(500)
    expect(await pawl.find({ key })).toMatchObject({ status: 'released', responseStatus: null })
    expect(await pawl.release({ key })).toBe(false)
    expect((await request(`${url}/orders`, { key, body: { status: 500 } })).headers['x-run']).toBe(
      '2',
    )
    expect(await pawl.find({ key: 'never seen' })).toBeNull()
  })

  it('commits a transaction with its entry, a request with its answer, and refuses what would hang', async () => {
    await engine.exec('create table written (key text, how text)')
    const insert = 'insert into written (key, how) values ($1, $2)'
    const route = async (options: IdempotencyOptions<Request>, handler: Handler) => {
      const { url } = await startApp(
        engine,
        options,
        (app) => app.post('/', (req, res) => handler(req.execution as Execution, res)),
        { pawl: { schema: 'written', migrate: true } },
      )
      return (key: string) => request(`${url}/`, { key })
    }
    const step = await route({}, async (execution, res) => {
      const { attempt, key } = execution
      await execution.transaction('write', (tx: Tx) => tx.query(insert, [key, `step ${attempt}`]))
      res.sendStatus(attempt === 1 ? 500 : 201)
    })
    const whole = await route({ transaction: true }, async ({ attempt, key, tx }, res) => {
      await tx.query(insert, [key, `whole ${attempt}`])
      res.sendStatus(attempt === 1 ? 500 : 201)
    })
    const both = await route({ transaction: true }, async (execution, res) => {
      res.send(await execution.step('inner', () => 1).catch((error) => error.code))
    })
    for (const post of [step, whole]) {
      const key = freshKey()
      expect([(await post(key)).status, (await post(key)).status]).toEqual([500, 201])
    }
    const { rows } = await engine.query('select how from written order by how')
    expect(rows).toEqual([{ how: 'step 1' }, { how: 'whole 2' }])
    expect((await both(freshKey())).text).toBe('step-nested')
  })

  it('works in a schema whose name is a reserved word, and is notified there', async () => {
    const { url } = await start('order')
    expect((await request(`${url}/orders`, { key: freshKey(), body: {} })).status).toBe(201)
    const db = await openDatabase(engine, 1000)
    const heard = await new Promise((resolve, reject) => {
      db.listen('order', resolve, () => {})
        .then(() => db.query("select pg_notify($1, 'hello')", ['order']))
        .catch(reject)
    })
    expect(heard).toBe('hello')
  })

  it('stays open when Pawl stops', async () => {
    const pawl = new Pawl({ database: engine, schema: 'open', migrate: true, logger: silent })
    await pawl.start()
    await pawl.stop()
    expect((await engine.query('select count(*)::int as n from open.processes')).rows).toEqual([
      { n: 0 },
    ])
  })
})

describe('a database of an unknown kind', () => {
  it.each([[{}], [42], [{ query() {} }]])('is refused: %j', async (database) => {
    await expect(openDatabase(database, 1000)).rejects.toMatchObject({ code: 'invalid-option' })
  })
})
