import { PGlite } from '@electric-sql/pglite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Pawl } from '../../lib/index.ts'
import { openDatabase } from '../../lib/store/open-database.ts'
import { silent, startApp } from '../helpers/app.ts'
import { freshKey, request } from '../helpers/request.ts'

const engine = new PGlite()
// A whole PostgreSQL in WebAssembly is compiled: on a busy machine that takes a minute.
beforeAll(() => engine.waitReady, 240_000)
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
