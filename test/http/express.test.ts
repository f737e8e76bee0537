import { describe, expect, it } from 'vitest'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'

const database = withDatabase()

describe.each(expressVersions)('Express $version', ({ express }) => {
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
})
