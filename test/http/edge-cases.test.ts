import { createReadStream, mkdtempSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Express } from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/http/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, type RawResponse, type RequestOptions, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 7) % 256))
const file = join(mkdtempSync(join(tmpdir(), 'pawl-file-')), 'file.bin')
writeFileSync(file, bytes)

describe.each(expressVersions)('Edge cases, Express $version', ({ version, express }) => {
  type Options = Parameters<typeof startApp>[1]
  const start = (routes: (app: Express) => void, options: Options = {}) =>
    startApp(database.url, options, routes, { express })

  /** Sends the same request twice; the first must have run, the second must be its replay. */
  async function twice(url: string, options: RequestOptions = {}): Promise<RawResponse> {
    const key = freshKey()
    const first = await request(url, { key, ...options })
    const second = await request(url, { key, ...options })
    expect(first.headers['idempotent-replayed']).toBeUndefined()
    expect(second.headers['idempotent-replayed']).toBe('true')
    expect(second.status).toBe(first.status)
    expect(second.body).toEqual(first.body)
    expect(endToEnd(second)).toEqual(endToEnd(first))
    return first
  }

  /** Each way to answer, and what must come out of it, twice. */
  const ways: Record<
    string,
    {
      answer: (req: import('express').Request, res: import('express').Response) => unknown
      check: (response: RawResponse) => void
      row: string
    }
  > = {
    json: {
      row: '6',
      answer: (_, res) => res.status(400).json({ error: 'no' }),
      check: (r) => {
        expect(r.status).toBe(400)
        expect(r.json).toEqual({ error: 'no' })
        expect(r.headers['content-type']).toMatch(/^application\/json/)
      },
    },
    'send of a string': {
      row: '6',
      answer: (_, res) => res.send('<p>hällo</p>'),
      check: (r) => expect(r.text).toBe('<p>hällo</p>'),
    },
    'send of a Buffer': {
      row: '12',
      answer: (_, res) => res.type('bin').send(bytes),
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'end of a typed array': {
      row: '12',
      answer: (_, res) => res.end(new Uint8Array([0, 255, 128])),
      check: (r) => expect(r.body).toEqual(Buffer.from([0, 255, 128])),
    },
    'a compressed body': {
      row: '12',
      answer: (_, res) => res.set('Content-Encoding', 'gzip').type('txt').send(gzipSync('packed')),
      check: (r) => expect(gunzipSync(r.body).toString()).toBe('packed'),
    },
    'big integers as text': {
      row: '13',
      answer: (_, res) => res.type('json').send('{"n": 12345678901234567890, "x": 1.0}'),
      check: (r) => expect(r.text).toBe('{"n": 12345678901234567890, "x": 1.0}'),
    },
    sendFile: {
      row: '11',
      answer: (_, res) => res.sendFile(file),
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'a pipe': {
      row: '11',
      answer: (_, res) => {
        createReadStream(file, { highWaterMark: 100 }).pipe(res)
      },
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'stream.pipeline': {
      row: '11',
      answer: (_, res) => pipeline(createReadStream(file, { highWaterMark: 64 }), res),
      check: (r) => expect(r.body).toEqual(bytes),
    },
    'write and end': {
      row: '11',
      answer: (_, res) => {
        res.write('one ')
        res.write(Buffer.from('two '))
        res.end('drei', 'latin1')
      },
      check: (r) => {
        expect(r.text).toBe('one two drei')
        expect(r.status).toBe(200)
      },
    },
    'writes whose callbacks are awaited': {
      row: '11',
      answer: async (_, res) => {
        for (const part of ['a', 'b', 'c']) await new Promise((done) => res.write(part, done))
        await new Promise<void>((done) => res.end(done))
      },
      check: (r) => expect(r.text).toBe('abc'),
    },
    'writeHead with headers': {
      row: '11',
      answer: (_, res) => {
        res.setHeader('X-One', 'set')
        res.writeHead(202, { 'X-One': 'given', 'X-Two': ['a', 'b'] })
        res.end('x')
      },
      check: (r) => {
        expect(r.status).toBe(202)
        expect(r.headers['x-one']).toBe('given')
        expect(r.headers['x-two']).toBe('a, b')
      },
    },
    redirect: {
      row: '19',
      answer: (_, res) => res.redirect(303, '/elsewhere'),
      check: (r) => {
        expect(r.status).toBe(303)
        expect(r.headers.location).toBe('/elsewhere')
      },
    },
    sendStatus: {
      row: '5',
      answer: (_, res) => res.sendStatus(418),
      check: (r) => expect(r.text).toMatch(/teapot/i),
    },
    'an empty 204': {
      row: '5',
      answer: (_, res) => res.status(204).end(),
      check: (r) => {
        expect(r.status).toBe(204)
        expect(r.body.length).toBe(0)
      },
    },
    'an empty 200': {
      row: '5',
      answer: (_, res) => res.end(),
      check: (r) => expect(r.body.length).toBe(0),
    },
    'a 304': {
      row: '5',
      answer: (_, res) => res.set('ETag', '"x"').status(304).send('ignored'),
      check: (r) => {
        expect(r.status).toBe(304)
        expect(r.headers.etag).toBe('"x"')
        expect(r.body.length).toBe(0)
      },
    },
    'arrays of headers': {
      row: '19',
      answer: (_, res) => res.set('Link', ['<a>', '<b>'] as never).send('x'),
      check: (r) => expect(r.headers.link).toBe('<a>, <b>'),
    },
  }
  it.each(Object.entries(ways))(
    'row $1.row: %s is sent and replayed byte for byte, without the handler',
    async (_, way) => {
      let runs = 0
      const { url } = await start((app) => {
        app.post('/', async (req, res) => {
          runs++
          await way.answer(req, res)
        })
      })
      way.check(await twice(url))
      expect(runs).toBe(1)
    },
  )

  it('row 5: HEAD, where the route asks for it', async () => {
    let runs = 0
    const { url } = await start(
      (app) => {
        app.head('/', (_req, res) => {
          runs++
          res.set('Content-Length', '1234').end()
        })
      },
      { methods: ['HEAD'] },
    )
    const first = await twice(url, { method: 'HEAD' })
    expect(first.headers['content-length']).toBe('1234')
    expect(runs).toBe(1)
  })

  it('row 4: an answer of Pawl itself is never what a retry gets', async () => {
    const { url } = await start((app) => {
      app.post('/', express.json(), (req, res) => res.json(req.body))
    })
    const key = freshKey()
    const first = await request(url, { key, body: { amount: 1 } })
    for (let i = 0; i < 2; i++) {
      expect((await request(url, { key, body: { amount: 2 } })).status).toBe(422)
      const retry = await request(url, { key, body: { amount: 1 } })
      expect(retry.status).toBe(200)
      expect(retry.body).toEqual(first.body)
    }
  })

  it('row 7: the same body under another key runs for itself', async () => {
    let runs = 0
    const { url } = await start((app) => {
      app.post('/', express.json(), (_req, res) => res.json({ run: ++runs }))
    })
    const [one, two] = await Promise.all(
      [freshKey(), freshKey()].map((key) => request(url, { key, body: { a: 1 } })),
    )
    expect([one?.json.run, two?.json.run].sort()).toEqual([1, 2])
  })

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

  it('row 10: a multipart form is the same with another boundary, and another with another file', async () => {
    const { url } = await start((app) =>
      app.post('/', (req, res) => {
        let size = 0
        req.on('data', (chunk) => {
          size += chunk.length
        })
        req.on('end', () => res.json({ size }))
      }),
    )
    const form = (boundary: string, content: string) => ({
      body: `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n${content}\r\n--${boundary}--\r\n`,
      headers: { 'Content-Type': `multipart/form-data; boundary=${boundary}` },
    })
    const key = freshKey()
    const first = await request(url, { key, ...form('aaaa', 'one') })
    expect(first.json.size).toBeGreaterThan(50)
    expect((await request(url, { key, ...form('bbbb', 'one') })).body).toEqual(first.body)
    expect((await request(url, { key, ...form('aaaa', 'two') })).status).toBe(422)
  })

  it('row 14: the handler goes on when its client hangs up, and the retry gets the outcome', async () => {
    let runs = 0
    let finished = false
    const { url } = await start((app) =>
      app.post('/', async (_req, res) => {
        runs++
        await new Promise((resolve) => setTimeout(resolve, 150))
        finished = true
        res.json({ run: runs })
      }),
    )
    const key = freshKey()
    const client = new AbortController()
    const first = request(url, { key, signal: client.signal })
    await waitFor('the handler', () => runs > 0)
    client.abort()
    await expect(first).rejects.toThrow()
    const retry = await request(url, { key })
    expect(finished).toBe(true)
    expect(retry.headers['idempotent-replayed']).toBe('true')
    expect(retry.json).toEqual({ run: 1 })
  })

  it.each(['pipe', 'pipeline'])(
    'row 14: a client that hangs up in the middle of a %s',
    async (how) => {
      let begun = false
      const { url } = await start((app) =>
        app.post('/', (_req, res) => {
          const slow = Readable.from(
            (async function* () {
              for (let i = 0; i < 5; i++) {
                yield Buffer.from(`part ${i} `)
                begun = true
                await new Promise((resolve) => setTimeout(resolve, 40))
              }
            })(),
          )
          if (how === 'pipe') slow.pipe(res)
          else pipeline(slow, res).catch(() => {})
        }),
      )
      const key = freshKey()
      const client = new AbortController()
      const first = request(url, { key, signal: client.signal })
      await waitFor('the first part', () => begun)
      client.abort()
      await expect(first).rejects.toThrow()
      expect((await request(url, { key })).text).toBe('part 0 part 1 part 2 part 3 part 4 ')
    },
  )

  it('row 18: a key that has expired is new, and may name another request', async () => {
    const { url } = await start(
      (app) => app.post('/', express.json(), (req, res) => res.json(req.body)),
      { retention: { completed: 50, unfinished: 50 } },
    )
    const key = freshKey()
    await request(url, { key, body: { a: 1 } })
    await new Promise((resolve) => setTimeout(resolve, 80))
    const again = await request(url, { key, body: { a: 2 } })
    expect(again.status).toBe(200)
    expect(again.json).toEqual({ a: 2 })
    expect(again.headers['idempotent-replayed']).toBeUndefined()
  })

  it('row 19: cookies are not replayed unless the route says so; several stay several', async () => {
    const routes = (app: Express) =>
      app.post('/', (_req, res) => {
        res.cookie('a', '1').cookie('b', '2').set('X-Kept', 'yes').send('x')
      })
    const plain = await start(routes)
    const key = freshKey()
    expect((await request(plain.url, { key })).headers['set-cookie']).toHaveLength(2)
    const replay = await request(plain.url, { key })
    expect(replay.headers['set-cookie']).toBeUndefined()
    expect(replay.headers['x-kept']).toBe('yes')
    const storing = await start(routes, { storedHeaders: () => true })
    const other = freshKey()
    const first = await request(storing.url, { key: other })
    const second = await request(storing.url, { key: other })
    expect(second.headers['set-cookie']).toEqual(first.headers['set-cookie'])
    expect(second.headers['set-cookie']).toHaveLength(2)
  })

  it('row 20: nothing of the request is stored but its fingerprint', async () => {
    const { url } = await start((app) =>
      app.post('/', express.json(), (_req, res) => res.send('ok')),
    )
    const key = freshKey()
    const secret = 'sk_live_very_secret'
    await request(url, { key, body: { secret }, headers: { Authorization: `Bearer ${secret}` } })
    const { rows } = await database.pool.query(
      'select e::text as row from pawl.executions e where key = $1',
      [key],
    )
    expect(rows[0].row).not.toContain(secret)
    expect(rows[0].row).not.toContain(Buffer.from(secret).toString('hex'))
  })

  it('row 21: "abc" and abc are one key', async () => {
    const { url } = await start((app) => app.post('/', (_req, res) => res.send('x')))
    const key = freshKey()
    await request(url, { key })
    expect((await request(url, { key: `"${key}"` })).headers['idempotent-replayed']).toBe('true')
    expect((await request(url, { key: `"${key}";v=1` })).headers['idempotent-replayed']).toBe(
      'true',
    )
  })

  it('row 22: a mismatch while the first is running is a 422, at once', async () => {
    let release = () => {}
    const { url } = await start((app) =>
      app.post('/', express.json(), (_req, res) => {
        release = () => res.send('done')
      }),
    )
    const key = freshKey()
    const first = request(url, { key, body: { a: 1 } })
    await waitFor('the handler', () => release.toString() !== '() => {}')
    expect((await request(url, { key, body: { a: 2 } })).status).toBe(422)
    release()
    expect((await first).text).toBe('done')
  })

  it('row 24: a 5xx is stored and replayed; with resumable it is sent, and the retry runs again', async () => {
    let runs = 0
    const routes = (app: Express) =>
      app.post('/', (_req, res) => res.status(++runs === 1 ? 503 : 200).send(`run ${runs}`))
    const stored = await start(routes)
    expect((await twice(stored.url)).status).toBe(503)
    runs = 0
    const resumable = await start(routes, { resumable: true })
    const key = freshKey()
    expect((await request(resumable.url, { key })).status).toBe(503)
    const retry = await request(resumable.url, { key })
    expect(retry.text).toBe('run 2')
    expect(retry.headers['idempotent-replayed']).toBeUndefined()
  })

  it.each([401, 403, 408, 425, 429])('row 24: a %d is never stored', async (status) => {
    let runs = 0
    const { url } = await start((app) =>
      app.post('/', (_req, res) => res.status(++runs === 1 ? status : 201).end()),
    )
    const key = freshKey()
    expect((await request(url, { key })).status).toBe(status)
    expect((await request(url, { key })).status).toBe(201)
  })

  it('row 25: a body over maxBody flows through, and replays say that it was not kept', async () => {
    let runs = 0
    const { url } = await start(
      (app) =>
        app.post('/', (_req, res) => {
          runs++
          Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(1024, 'x'))).pipe(
            res.status(201).set('X-Order', '7'),
          )
        }),
      { maxBody: '10kb' },
    )
    const key = freshKey()
    const first = await request(url, { key })
    expect(first.body.length).toBe(64 * 1024)
    const replay = await request(url, { key })
    expect(replay.status).toBe(201)
    expect(replay.headers['x-order']).toBe('7')
    expect(replay.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(replay.json.type).toBe('urn:pawl:problem:body-not-kept')
    expect(replay.headers['idempotent-replayed']).toBe('true')
    expect(runs).toBe(1)
  })

  it('row 11: an event stream flows at once, its outcome committed before its first byte', async () => {
    let finish = () => {}
    let runs = 0
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        runs++
        res.writeHead(200, { 'Content-Type': 'text/event-stream' })
        res.write('data: one\n\n')
        finish = () => res.end('data: two\n\n')
      }),
    )
    const key = freshKey()
    const { hostname, port } = new URL(url)
    const events = await new Promise<http.IncomingMessage>((resolve) => {
      http
        .request({ hostname, port, method: 'POST', headers: { 'Idempotency-Key': key } }, resolve)
        .end()
    })
    const first = await new Promise((resolve) =>
      events.once('data', (chunk) => resolve(String(chunk))),
    )
    expect(first).toBe('data: one\n\n')
    const sql = 'select status, body_kept from pawl.execution_log where key = $1'
    const { rows } = await database.pool.query(sql, [key])
    expect(rows[0]).toEqual({ status: 'done', body_kept: false })
    finish()
    const rest = await new Promise((resolve) =>
      events.once('data', (chunk) => resolve(String(chunk))),
    )
    expect(rest).toBe('data: two\n\n')
    const replay = await request(url, { key })
    expect(replay.json.type).toBe('urn:pawl:problem:body-not-kept')
    expect(runs).toBe(1)
  })

  it('row 29: a response that an earlier middleware has sent passes through', async () => {
    const { url } = await startApp(database.url, {}, () => {}, { express, mount: false }).then(
      async (started) => {
        started.app.use((_req, res, next) => {
          res.send('early')
          next()
        })
        started.app.use(idempotency(started.pawl))
        started.app.post('/', () => {})
        return started
      },
    )
    const key = freshKey()
    expect((await request(url, { key })).text).toBe('early')
    const { rows } = await database.pool.query('select 1 from pawl.executions where key = $1', [
      key,
    ])
    expect(rows).toEqual([])
  })

  it('row 29: of two answers the first wins, and the second fails as it would in Node', async () => {
    let code: unknown
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        res.json({ answer: 1 })
        try {
          res.json({ answer: 2 })
        } catch (error) {
          code = (error as { code: string }).code
        }
      }),
    )
    expect((await twice(url)).json).toEqual({ answer: 1 })
    expect(code).toBe('ERR_HTTP_HEADERS_SENT')
  })

  it('row 29: a handler that never answers is ended by the timeout, and its late answer still counts', async () => {
    let answer = () => {}
    const { url } = await start(
      (app) =>
        app.post('/', (_req, res) => {
          answer = () => res.status(201).set('X-Late', 'yes').json({ late: true })
        }),
      { timeout: 100, wait: 0 },
    )
    const key = freshKey()
    const first = await request(url, { key })
    expect(first.status).toBe(504)
    expect(first.json.type).toBe('urn:pawl:problem:timed-out')
    expect(first.headers['x-late']).toBeUndefined()
    expect((await request(url, { key })).json.type).toBe('urn:pawl:problem:outcome-unknown')
    answer()
    const late = await waitFor('the late answer', async () => {
      const response = await request(url, { key })
      return response.status === 201 ? response : null
    })
    expect(late.json).toEqual({ late: true })
    expect(late.headers['x-late']).toBe('yes')
    expect(late.headers['idempotent-replayed']).toBe('true')
  })

  it('row 29: with resumable, the retry after a timeout runs the handler again', async () => {
    let runs = 0
    const { url } = await start(
      (app) =>
        app.post('/', (req, res) => {
          if (++runs > 1) res.json({ attempt: req.execution?.attempt })
        }),
      { timeout: 100, resumable: true },
    )
    const key = freshKey()
    expect((await request(url, { key })).status).toBe(504)
    expect((await request(url, { key })).json).toEqual({ attempt: 2 })
  })

  it('row 30: GET, HEAD, OPTIONS, PUT and DELETE with a key pass untouched', async () => {
    let runs = 0
    const { url } = await start((app) =>
      app.all('/', (req, res) => {
        runs++
        res.json({ execution: req.execution ?? null })
      }),
    )
    const key = freshKey()
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'GET']) {
      const answer = await request(url, { key, method })
      expect(answer.status).toBe(200)
      if (method !== 'HEAD') expect(answer.json).toEqual({ execution: null })
    }
    expect(runs).toBe(6)
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

  it('row 31: early hints and 100-continue pass, and are not stored', async () => {
    const { url } = await start((app) =>
      app.post('/', (req, res) => {
        res.writeEarlyHints({ link: '</style.css>; rel=preload' })
        let size = 0
        req.on('data', (chunk) => {
          size += chunk.length
        })
        req.on('end', () => res.json({ size }))
      }),
    )
    const key = freshKey()
    const { hostname, port } = new URL(url)
    const seen: string[] = []
    const text = await new Promise<string>((resolve, reject) => {
      const outgoing = http.request({
        hostname,
        port,
        method: 'POST',
        headers: { 'Idempotency-Key': key, Expect: '100-continue', 'Content-Length': 4 },
      })
      outgoing.on('continue', () => {
        seen.push('continue')
        outgoing.end('body')
      })
      outgoing.on('information', (info) => seen.push(String(info.statusCode)))
      outgoing.on('response', async (response) =>
        resolve(Buffer.concat(await response.toArray()).toString()),
      )
      outgoing.on('error', reject)
      outgoing.flushHeaders()
    })
    expect(text).toBe('{"size":4}')
    expect(seen).toContain('continue')
    expect(seen).toContain('103')
  })

  it('row 31: trailers pass', async () => {
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        res.setHeader('Trailer', 'X-Sum')
        res.write('body')
        res.addTrailers({ 'X-Sum': '42' })
        res.end()
      }),
    )
    const { hostname, port } = new URL(url)
    const response = await new Promise<http.IncomingMessage>((resolve) => {
      http
        .request(
          { hostname, port, method: 'POST', headers: { 'Idempotency-Key': freshKey() } },
          resolve,
        )
        .end()
    })
    await response.toArray()
    expect(response.trailers).toEqual({ 'x-sum': '42' })
  })

  const failures: [
    string,
    (req: unknown, res: unknown, next: (error: unknown) => void) => unknown,
  ][] = [
    [
      'throws',
      () => {
        throw new Error('boom')
      },
    ],
    ['calls next(error)', (_req, _res, next) => next(new Error('boom'))],
    // Express 4 does not look at promises: the app's own wrapper does.
    [
      'rejects',
      version === 5
        ? async () => {
            throw new Error('boom')
          }
        : (_req, _res, next) => Promise.reject(new Error('boom')).catch(next),
    ],
  ]
  it.each(failures)(
    'row 32: a handler that %s: its 500 is stored and replayed',
    async (_, handler) => {
      let runs = 0
      const { url } = await start((app) => {
        app.post('/', (req, res, next) => {
          runs++
          return handler(req, res, next)
        })
        app.use(((_error, _req, res, _next) => {
          res.status(500).json({ run: runs })
        }) as import('express').ErrorRequestHandler)
      })
      expect((await twice(url)).json).toEqual({ run: 1 })
      expect(runs).toBe(1)
    },
  )

  it('row 32: a handler that throws after it answered does not take the answer away', async () => {
    const { url } = await start((app) =>
      app.post('/', (_req, res) => {
        res.status(201).send('answered')
        throw new Error('too late')
      }),
    )
    expect((await twice(url)).text).toBe('answered')
  })
})

function endToEnd({ headers }: RawResponse) {
  const {
    date,
    connection,
    'keep-alive': a,
    'transfer-encoding': b,
    'content-length': c,
    'idempotent-replayed': d,
    ...rest
  } = headers
  return rest
}
