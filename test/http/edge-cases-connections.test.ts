import { once } from 'node:events'
import { connect } from 'node:net'
import type { Express, Request, RequestHandler } from 'express'
import { describe, expect, it } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'

const database = withDatabase()

const stored = async (key: string) => {
  const sql = 'select status, response_headers from pawl.executions where key = $1'
  return (await database.pool.query(sql, [key])).rows[0]
}

/** Sends bytes as they are and collects all that comes back until the server closes. */
async function raw(url: string, bytes: string | Buffer): Promise<string> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  let received = ''
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
  })
  socket.setTimeout(30_000, () => socket.destroy(new Error(`No end after:\n${received}`)))
  socket.write(bytes)
  await once(socket, 'close')
  return received
}

describe.each(expressVersions)('Edge cases of connections, Express $version', ({ express }) => {
  const start = (routes: (app: Express) => void, options: IdempotencyOptions<Request> = {}) =>
    startApp(database.url, options, routes, { express })
  const counting = (): RequestHandler => {
    let runs = 0
    return (_req, res) => {
      res.json({ run: ++runs })
    }
  }
  const post = (key: string, more = '') =>
    `POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: ${key}\r\n${more}Content-Length: 0\r\n\r\n`

  it('row 19: Date, Connection and Keep-Alive are of one message and are not stored', async () => {
    const { url } = await start((app) => {
      app.post('/', (_req, res) => {
        res.set({
          Date: 'Thu, 01 Jan 1970 00:00:00 GMT',
          Connection: 'close',
          'Keep-Alive': 'timeout=7',
          'Proxy-Authenticate': 'Basic',
          'X-Kept': 'yes',
        })
        res.send('x')
      })
    })
    const key = freshKey()
    expect((await request(url, { key })).headers.date).toMatch(/1970/)
    const before = Math.floor(Date.now() / 1000) * 1000 // The header has no fractions.
    const replay = await request(url, { key })
    const date = Date.parse(replay.headers.date as string)
    // Node has the header's text of up to a second ago.
    expect(date).toBeGreaterThanOrEqual(before - 1000)
    expect(date).toBeLessThanOrEqual(Date.now())
    expect(replay.headers['proxy-authenticate']).toBeUndefined()
    expect(replay.headers['x-kept']).toBe('yes')
    const names = JSON.parse((await stored(key)).response_headers).map(([name]: string[]) => name)
    expect(names).toContain('X-Kept')
    expect(names.join()).not.toMatch(/date|connection|keep-alive|proxy/i)
  })

  it.each(['before', 'after'])(
    'row 27: NUL and invalid UTF-8 in a body, mounted %s a parser: told apart as bytes',
    async (where) => {
      const app = await startApp(database.url, {}, () => {}, { express, mount: false })
      const chain = [idempotency(app.pawl), express.raw({ type: '*/*' })]
      if (where === 'after') chain.reverse()
      app.app.use(...chain)
      app.app.post('/', (req, res) => {
        res.type('bin').send(req.body)
      })
      const key = freshKey()
      const [one, two] = [Buffer.of(0, 0xff, 0xc3), Buffer.of(0, 0xfe, 0xc3)]
      const headers = { 'Content-Type': 'application/octet-stream' }
      const send = (body: Buffer) => request(app.url, { key, body, headers })
      expect((await send(one)).body).toEqual(one)
      expect((await send(two)).status).toBe(422)
      expect((await send(one)).body).toEqual(one)
    },
  )

  it('row 31: a request that offers an upgrade nobody takes is a request', async () => {
    const { url } = await start((app) => app.post('/', counting()))
    const key = freshKey()
    const headers = { Connection: 'Upgrade', Upgrade: 'h2c' }
    expect((await request(url, { key, headers })).json).toEqual({ run: 1 })
    expect((await request(url, { key, headers })).json).toEqual({ run: 1 })
  })

  it('row 31: an upgrade that somebody takes does not come by Pawl', async () => {
    const { url, server } = await start((app) => app.post('/', counting()))
    server.on('upgrade', (_req, socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhi')
    })
    const key = freshKey()
    const answer = await raw(url, post(key, 'Connection: Upgrade\r\nUpgrade: x\r\n'))
    expect(answer).toMatch(/^HTTP\/1.1 101 [\s\S]*hi$/)
    expect(await stored(key)).toBeUndefined()
  })

  describe('row 8: apps in apps', () => {
    it('a mounted app sees the whole URL, and its answers replay', async () => {
      const { url, app } = await start(() => {})
      const inner = express()
      inner.post('/pay', (req, res) => {
        res.status(201).json({ base: req.baseUrl, run: Math.random() })
      })
      app.use('/eu', inner)
      app.use('/us', inner)
      const first = await twice(`${url}/eu/pay`)
      expect(first.json.base).toBe('/eu')
      const key = freshKey()
      await request(`${url}/eu/pay`, { key })
      expect((await request(`${url}/us/pay`, { key })).status).toBe(422)
    })

    it('mounted on the inner app only, the outer one is left alone', async () => {
      const { url, app, pawl } = await startApp(database.url, {}, () => {}, {
        express,
        mount: false,
      })
      const inner = express()
      inner.use(idempotency(pawl))
      inner.post('/pay', counting())
      app.use('/api', inner)
      app.post('/pay', counting())
      await twice(`${url}/api/pay`)
      const key = freshKey()
      expect((await request(`${url}/pay`, { key })).json).toEqual({ run: 1 })
      expect((await request(`${url}/pay`, { key })).json).toEqual({ run: 2 })
    })
  })
})
