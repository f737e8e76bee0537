import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { allExpressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'

const database = withDatabase()

describe.each(allExpressVersions)('Express $version', ({ express }) => {
  it('runs a keyed request once and replays its response', async () => {
    let runs = 0
    const { url } = await startApp(
      database.url,
      {},
      (app) => {
        app.use(express.json())
        app.post('/orders', (req, res) => {
          res.status(201).json({ run: ++runs, amount: req.body.amount })
        })
      },
      { express },
    )
    const key = freshKey()
    const first = await request(`${url}/orders`, { key, body: { amount: 5 } })
    const second = await request(`${url}/orders`, { key, body: { amount: 5 } })
    expect(first.status).toBe(201)
    expect(first.json).toEqual({ run: 1, amount: 5 })
    expect(first.headers['idempotent-replayed']).toBeUndefined()
    expect(second.status).toBe(201)
    expect(second.body).toEqual(first.body)
    expect(second.headers['idempotent-replayed']).toBe('true')
    expect(second.headers.etag).toBe(first.headers.etag)
    expect(second.headers['content-type']).toBe(first.headers['content-type'])
    const other = await request(`${url}/orders`, { key, body: { amount: 6 } })
    expect(other.status).toBe(422)
    expect(other.json.type).toBe('urn:pawl:problem:request-mismatch')
    expect(runs).toBe(1)
  })

  it('asks the database twice for a first request and once for a replay, and shares under load', async () => {
    const pool = new pg.Pool({ connectionString: database.url })
    let statements = 0
    pool.on('connect', (client) => {
      const { query } = client
      client.query = ((...args: [{ text: string }]) => {
        if (!args[0].text.includes('set heartbeat')) statements++
        return Reflect.apply(query, client, args)
      }) as never
    })
    const { url, pawl } = await startApp(
      pool,
      {},
      (app) => void app.post('/', (_req, res) => void res.send('x')),
      { express },
    )
    const cost = async (work: () => Promise<unknown>) => {
      statements = 0
      await work()
      return statements
    }
    const key = freshKey()
    expect(await cost(() => request(url, { key }))).toBe(2)
    expect(await cost(() => request(url, { key }))).toBe(1)
    const keys = Array.from({ length: 200 }, freshKey)
    expect(await cost(() => Promise.all(keys.map((key) => request(url, { key }))))).toBeLessThan(
      400,
    )
    await pawl.stop()
    await pool.end()
  })
})
