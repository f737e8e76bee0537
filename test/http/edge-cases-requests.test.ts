import type { Express } from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'

const database = withDatabase()

describe.each(expressVersions)('Edge cases of requests, Express $version', ({ express }) => {
  type Options = Parameters<typeof startApp>[1]
  const start = (routes: (app: Express) => void, options: Options = {}) =>
    startApp(database.url, options, routes, { express })

  it('row 8: the same path in two mounted routers is two requests, and the query counts', async () => {
    const { url } = await start((app) => {
      const router = express.Router()
      router.post('/pay', (req, res) => {
        res.send(req.originalUrl)
      })
      app.use('/eu', router)
      app.use('/us', router)
    })
    const key = freshKey()
    expect((await request(`${url}/eu/pay`, { key })).text).toBe('/eu/pay')
    expect((await request(`${url}/us/pay`, { key })).status).toBe(422)
    expect((await request(`${url}/eu/pay?a=1`, { key })).status).toBe(422)
    expect((await request(`${url}/eu/pay`, { key })).text).toBe('/eu/pay')
  })

  it('row 8: mounted on a router inside a router it still sees the whole URL', async () => {
    const started = await startApp(database.url, {}, () => {}, { express, mount: false })
    const [outer, inner] = [express.Router(), express.Router()]
    inner.use(idempotency(started.pawl))
    inner.post('/pay', (req, res) => {
      res.json({ execution: req.execution?.key })
    })
    outer.use('/v1', inner)
    started.app.use('/eu', outer)
    started.app.use('/us', outer)
    const key = freshKey()
    const first = await request(`${started.url}/eu/v1/pay`, { key })
    expect(first.json).toEqual({ execution: key })
    expect((await request(`${started.url}/us/v1/pay`, { key })).status).toBe(422)
    expect((await request(`${started.url}/eu/v1/pay`, { key })).body).toEqual(first.body)
  })

  describe.each(['before', 'after'])('row 9: mounted %s the body parser', (where) => {
    const parsers = () => [
      express.json({ limit: '5mb' }),
      express.urlencoded({ extended: false }),
      express.text(),
      express.raw(),
    ]
    const startParsed = async () => {
      let runs = 0
      const app = await startApp(database.url, {}, () => {}, { express, mount: false })
      const middleware = idempotency(app.pawl)
      if (where === 'before') app.app.use(middleware, ...parsers())
      else app.app.use(...parsers(), middleware)
      app.app.post('/', (req, res) => {
        runs++
        const body = Buffer.isBuffer(req.body) ? req.body.toString('hex') : req.body
        res.json({ body: body ?? null })
      })
      return { url: app.url, runs: () => runs }
    }

    it.each([
      ['application/json', '{"a":1,"b":[1,2]}', '{"a":1,"b":[2,1]}'],
      ['application/x-www-form-urlencoded', 'a=1&b=2', 'a=1&b=3'],
      ['text/plain', 'amount 5', 'amount 6'],
      ['application/octet-stream', 'abc', 'abd'],
    ])('another %s body is another request', async (type, body, other) => {
      const { url, runs } = await startParsed()
      const key = freshKey()
      const headers = { 'Content-Type': type }
      const first = await request(url, { key, body, headers })
      expect(first.json.body).not.toBeNull()
      expect((await request(url, { key, body: other, headers })).status).toBe(422)
      expect((await request(url, { key, body, headers })).body).toEqual(first.body)
      expect(runs()).toBe(1)
    })

    it('row 10: a body of 2 MB counts to its last byte', async () => {
      const { url } = await startParsed()
      const key = freshKey()
      const large = (end: string) => JSON.stringify({ text: 'x'.repeat(2 * 1024 ** 2) + end })
      const headers = { 'Content-Type': 'application/json' }
      // The response is over maxBody; its status says enough.
      expect((await request(url, { key, body: large('a'), headers })).status).toBe(200)
      expect((await request(url, { key, body: large('b'), headers })).status).toBe(422)
    })

    it('an empty body is a body', async () => {
      const { url } = await startParsed()
      await twice(url)
      await twice(url, {
        headers: { 'Transfer-Encoding': 'chunked', 'Content-Type': 'application/json' },
      })
    })

    it('malformed JSON is the 400 of the parser, as without Pawl', async () => {
      const { url, runs } = await startParsed()
      const options = { body: '{"a":', headers: { 'Content-Type': 'application/json' } }
      const key = freshKey()
      expect((await request(url, { key, ...options })).status).toBe(400)
      expect((await request(url, { key, ...options })).status).toBe(400)
      expect(runs()).toBe(0)
    })

    it('row 27: lone surrogates are told apart, or refused', async () => {
      const { url } = await startParsed()
      const headers = { 'Content-Type': 'application/json' }
      const answer = await request(url, { key: freshKey(), body: '{"a":"\\ud800"}', headers })
      expect(answer.status).toBe(where === 'before' ? 200 : 400)
      if (where === 'after') expect(answer.json.type).toBe('urn:pawl:problem:body-unreadable')
    })
  })

  it('row 10: key order and white space count as the client sent them, or not once parsed', async () => {
    const { url } = await start((app) =>
      app.post('/', express.json(), (_req, res) => res.send('x')),
    )
    const key = freshKey()
    const headers = { 'Content-Type': 'application/json' }
    await request(url, { key, body: '{"a":1,"b":2}', headers })
    expect((await request(url, { key, body: '{"b":2,"a":1}', headers })).status).toBe(422)

    const parsed = await startApp(database.url, {}, () => {}, { express, mount: false })
    parsed.app.use(express.json(), idempotency(parsed.pawl))
    parsed.app.post('/', (_req, res) => {
      res.send('x')
    })
    const other = freshKey()
    await request(parsed.url, { key: other, body: '{"a":1,"b":2}', headers })
    const same = await request(parsed.url, { key: other, body: '{ "b": 2, "a": 1 }', headers })
    expect(same.headers['idempotent-replayed']).toBe('true')
  })

  it('row 30: without a key, or where skip says so, nothing changes', async () => {
    let runs = 0
    const { url } = await start((app) => app.use((_req, res) => res.json({ run: ++runs })), {
      skip: (req) => req.path === '/webhook',
    })
    expect((await request(`${url}/a`)).json.run).toBe(1)
    expect((await request(`${url}/a`)).json.run).toBe(2)
    const key = freshKey()
    expect((await request(`${url}/webhook`, { key })).json.run).toBe(3)
    expect((await request(`${url}/webhook`, { key })).json.run).toBe(4)
  })
})
