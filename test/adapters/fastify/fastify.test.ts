import { once } from 'node:events'
import http2 from 'node:http2'
import { Readable } from 'node:stream'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import compress5 from '@fastify/compress'
import cors5 from '@fastify/cors'
import multipart5 from '@fastify/multipart'
import fastify5, {
  type FastifyInstance,
  type FastifyServerOptions,
  type RouteHandlerMethod,
} from 'fastify'
import fastify4 from 'fastify4'
import compress4 from 'fastify4-compress'
import cors4 from 'fastify4-cors'
import multipart4 from 'fastify4-multipart'
import { afterEach, describe, expect, it } from 'vitest'
import {
  type FastifyIdempotencyOptions,
  idempotency,
} from '../../../lib/adapters/fastify/fastify.ts'
import { Pawl } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { isProof } from '../../helpers/proof.ts'
import { freshKey, type RawResponse, request } from '../../helpers/request.ts'
import { endToEnd, twice } from '../../helpers/twice.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const versions = [
  {
    version: 4,
    fastify: fastify4 as unknown as typeof fastify5,
    plugins: { compress: compress4, cors: cors4, multipart: multipart4 },
  },
  {
    version: 5,
    fastify: fastify5,
    plugins: { compress: compress5, cors: cors5, multipart: multipart5 },
  },
]

async function startPawl(): Promise<Pawl> {
  const pawl = new Pawl({ database: database.apps, logger: silent, drainTimeout: 0 })
  await pawl.start()
  closing.push(() => pawl.stop())
  return pawl
}

const stored = async (key: string) => {
  const sql = 'select * from pawl.execution_log where key = $1'
  return (await database.pool.query(sql, [key])).rows[0]
}

function same(replay: RawResponse, first: RawResponse) {
  expect(replay.headers['idempotent-replayed']).toBe('true')
  expect([replay.status, replay.body]).toEqual([first.status, first.body])
  expect(endToEnd(replay)).toEqual(endToEnd(first))
}

// Of the version before, `npm test` runs a part of the conformance suite.
describe.each(isProof ? versions : versions.slice(-1))(
  'Fastify $version',
  ({ fastify, plugins }) => {
    const { compress, cors, multipart } = plugins
    type Given = Omit<FastifyIdempotencyOptions, 'pawl'>
    /** @param build registers plugins and routes; calls `protect` where the plugin belongs */
    const start = async (
      build: (
        app: FastifyInstance,
        protect: (options?: Given, on?: FastifyInstance) => Promise<unknown>,
      ) => unknown,
      server: FastifyServerOptions = {},
    ) => {
      const pawl = await startPawl()
      const app = fastify({ forceCloseConnections: true, ...server }) as unknown as FastifyInstance
      closing.push(() => app.close())
      await build(app, async (options = {}, on = app) =>
        on.register(idempotency, { pawl, ...options }),
      )
      const url = await app.listen({ port: 0, host: '127.0.0.1' })
      return { app, url, pawl }
    }

    describe('ways to answer', () => {
      const ways: Record<string, RouteHandlerMethod> = {
        'a returned object': async () => ({ a: 1 }),
        'reply.send in a callback handler': (_request, reply) => {
          setImmediate(() => reply.code(201).send({ a: 1 }))
        },
        'a web Response': async () =>
          new Response('from the web', { status: 207, headers: { 'X-One': '1' } }),
        'a web stream': (_request, reply) =>
          reply.type('text/plain').send(new Blob(['web ', 'stream']).stream()),
        'a stream without a type': (_request, reply) => reply.send(Readable.from(['a', 'b'])),
        'a typed array': (_request, reply) => reply.send(new Uint8Array([0, 255])),
        'its own serializer': (_request, reply) =>
          reply
            .type('text/x')
            .serializer((what: unknown) => `<${JSON.stringify(what)}>`)
            .send([1]),
        'an error of its own status': async () => {
          throw Object.assign(new Error('taken'), { statusCode: 409, code: 'TAKEN' })
        },
        callNotFound: (_request, reply) => {
          reply.callNotFound()
        },
        'a hijacked reply': (_request, reply) => {
          reply.hijack()
          reply.raw.writeHead(203, { 'X-Raw': 'yes' })
          reply.raw.write('raw ')
          reply.raw.end('bytes')
        },
        'reply.raw without hijack': async (_request, reply) => {
          reply.raw.setHeader('X-Raw', 'yes')
          reply.raw.end('raw')
          return reply
        },
      }
      it.each(Object.entries(ways))('%s: sent and replayed byte for byte', async (_, handler) => {
        let runs = 0
        const { url } = await start(async (app, protect) => {
          await protect()
          app.post('/', function (request, reply) {
            runs++
            return handler.call(this, request, reply)
          })
        })
        const bare = await request(url)
        const first = await twice(url)
        expect(runs).toBe(2)
        expect([first.status, first.body]).toEqual([bare.status, bare.body])
        expect(endToEnd(first)).toEqual(endToEnd(bare))
      })
    })

    it('a response schema shapes the bytes that are stored', async () => {
      const { url } = await start(async (app, protect) => {
        await protect()
        const response = { 201: { type: 'object', properties: { id: { type: 'integer' } } } }
        app.post('/', { schema: { response } }, (_request, reply) =>
          reply.code(201).send({ id: '7', secret: 'left out' }),
        )
      })
      expect((await twice(url)).text).toBe('{"id":7}')
    })

    it('an object of the wrong kind is the error of Fastify, stored as such', async () => {
      const { url } = await start(async (app, protect) => {
        await protect()
        app.post('/', (_request, reply) => reply.type('text/x').send({ no: 'serializer' }))
      })
      const first = await twice(url)
      expect(first.status).toBe(500)
      expect(first.json.code).toBe('FST_ERR_REP_INVALID_PAYLOAD_TYPE')
    })

    it('a header that Node refuses is the 500 of it, stored as such', async () => {
      const { url } = await start(async (app, protect) => {
        await protect()
        app.post('/', (_request, reply) => reply.header('x-a', 'a\nb').send('x'))
      })
      const first = await twice(url)
      expect(first.status).toBe(500)
      expect(first.json.code).toBe('ERR_INVALID_CHAR')
    })

    it('a stream that fails is answered by the error handler, and that is stored', async () => {
      const { url } = await start(async (app, protect) => {
        await protect()
        app.setErrorHandler((error: Error, _request, reply) =>
          reply.code(502).send({ because: error.message }),
        )
        app.post('/', (_request, reply) =>
          reply.send(
            Readable.from(
              (async function* () {
                yield 'half'
                throw new Error('upstream')
              })(),
            ),
          ),
        )
      })
      const first = await twice(url)
      expect([first.status, first.json]).toEqual([502, { because: 'upstream' }])
    })

    it('row 29: of two answers the first wins', async () => {
      const { url } = await start(async (app, protect) => {
        await protect()
        app.post('/', (_request, reply) => {
          reply.send({ answer: 1 })
          reply.send({ answer: 2 })
        })
      })
      expect((await twice(url)).json).toEqual({ answer: 1 })
    })

    describe('where it is registered', () => {
      it('it protects its scope only', async () => {
        const { url } = await start(async (app, protect) => {
          let runs = 0
          app.post('/outside', async (req) => ({ run: ++runs, execution: req.execution ?? null }))
          await app.register(async (scope) => {
            await protect({}, scope)
            scope.post('/inside', async () => ({ run: ++runs }))
            await scope.register(async (inner) => {
              inner.post('/inner', async () => ({ run: ++runs }))
            })
          })
        })
        const key = freshKey()
        const outside = () => request(`${url}/outside`, { key })
        expect((await outside()).json).toEqual({ run: 1, execution: null })
        expect((await outside()).json).toEqual({ run: 2, execution: null })
        await twice(`${url}/inside`)
        await twice(`${url}/inner`)
      })

      it('routes that were added before it was loaded are protected as well, and what has no route', async () => {
        const { url } = await start((app, protect) => {
          app.post('/early', async () => ({ at: Math.random() }))
          protect()
          app.post('/late', async () => ({ at: Math.random() }))
        })
        await twice(`${url}/early`)
        await twice(`${url}/late`)
        expect((await twice(`${url}/nowhere`)).status).toBe(404)
      })

      it('twice, the first that finds a key handles the request', async () => {
        const { url } = await start(async (app, protect) => {
          await protect({ key: 'X-Other-Key' })
          await protect({ scope: () => 'second' })
          app.post('/', async (req) => ({ scope: req.execution?.scope, at: Math.random() }))
        })
        expect((await twice(url)).json.scope).toBe('second')
        const both = { 'X-Other-Key': freshKey() }
        expect((await twice(url, { headers: both })).json.scope).toBe('')
      })

      it('a route has options of its own, or is not protected', async () => {
        const { url } = await start(async (app, protect) => {
          await protect({ required: true, scope: () => 'all' })
          const handler = async () => ({ at: Math.random() })
          app.post('/usual', handler)
          app.post('/strict', { config: { idempotency: { strict: true } } }, handler)
          app.post('/free', { config: { idempotency: false } }, handler)
          app.put('/put', { config: { idempotency: { methods: ['PUT'] } } }, handler)
        })
        const key = freshKey()
        expect((await request(`${url}/usual`)).json.type).toBe('urn:pawl:problem:key-missing')
        expect((await request(`${url}/strict`)).json.type).toBe('urn:pawl:problem:key-missing')
        expect((await request(`${url}/strict`, { key })).json.type).toBe(
          'urn:pawl:problem:key-malformed',
        )
        const [one, two] = [
          await request(`${url}/free`, { key }),
          await request(`${url}/free`, { key }),
        ]
        expect(one.json).not.toEqual(two.json)
        await twice(`${url}/put`, { method: 'PUT' })
      })

      it('a wrong option is an error where it is given', async () => {
        const pawl = await startPawl()
        const wrong = { pawl, wait: 'soon' } as const
        const app = fastify()
        await expect(app.register(idempotency, wrong).ready()).rejects.toThrow(/"wait" is "soon"/)
        const none = fastify()
        await expect(none.register(idempotency, {} as never).ready()).rejects.toThrow(/not a Pawl/)
        const route = fastify()
        await route.register(idempotency, { pawl })
        const config = { idempotency: { scop: 1 } as never }
        expect(() => route.post('/', { config }, async () => 'x')).toThrow(/no option "scop"/)
        const prefixed = fastify()
        await prefixed.register(idempotency, { pawl, prefix: '/v1', logLevel: 'warn' } as never)
      })
    })

    describe('in the life of a request', () => {
      it('authentication comes first, wherever it hooks in', async () => {
        for (const hook of ['onRequest', 'preHandler'] as const) {
          const { url } = await start(async (app, protect) => {
            await protect({ scope: (req) => (req as unknown as { user: string }).user })
            const authenticate = async (req: object) => {
              const { authorization } = (req as { headers: { authorization?: string } }).headers
              if (!authorization) throw Object.assign(new Error('who?'), { statusCode: 401 })
              Object.assign(req, { user: authorization })
            }
            app.post('/', { [hook]: authenticate }, async (req) => ({
              scope: req.execution?.scope,
            }))
          })
          const key = freshKey()
          expect((await request(url, { key })).status).toBe(401)
          const first = await twice(url, { headers: { Authorization: 'alice' } })
          expect(first.json).toEqual({ scope: 'alice' })
        }
      })

      it('what validation refuses is not stored, and the corrected request may use the key', async () => {
        const body = {
          type: 'object',
          required: ['amount'],
          properties: { amount: { type: 'integer' } },
        }
        const { url } = await start(async (app, protect) => {
          await protect()
          app.post('/', { schema: { body } }, async (req) => req.body)
        })
        const key = freshKey()
        expect((await request(url, { key, body: {} })).status).toBe(400)
        expect(await stored(key)).toBeUndefined()
        expect((await request(url, { key, body: { amount: 1 } })).json).toEqual({ amount: 1 })
        // Also what validation would coerce to the same: the bytes count.
        expect((await request(url, { key, body: { amount: '1' } })).status).toBe(422)
        expect((await request(url, { key, body: { amount: 1, more: 1 } })).status).toBe(422)
      })

      it('a mistake of the app goes to its error handler', async () => {
        let seen: { code?: string } = {}
        const { url } = await start(async (app, protect) => {
          await protect({ scope: () => undefined as never })
          app.setErrorHandler((error: { code?: string }, _request, reply) => {
            seen = error
            return reply.code(500).send('sorry')
          })
          app.post('/', async () => 'x')
        })
        expect((await request(url, { key: freshKey() })).text).toBe('sorry')
        expect(seen.code).toBe('scope-invalid')
      })

      it('the logger logs replays as requests, and no warnings', async () => {
        const lines: string[] = []
        const stream = { write: (line: string) => void lines.push(line) }
        const { url } = await start(
          async (app, protect) => {
            await protect()
            app.post('/', async () => ({ a: 1 }))
          },
          { logger: { level: 'info', stream } },
        )
        await twice(url)
        await waitFor(
          'the log',
          () => lines.filter((line) => line.includes('completed')).length >= 2,
        )
        expect(lines.filter((line) => JSON.parse(line).level > 30)).toEqual([])
      })

      it('hooks that follow see the answer, and onResponse runs for replays', async () => {
        let responses = 0
        const { url } = await start(async (app, protect) => {
          await protect()
          app.addHook('onSend', async (_request, reply, payload) => {
            reply.header('x-length', String(payload).length)
            return payload
          })
          app.addHook('onResponse', async () => {
            responses++
          })
          app.post('/', async () => ({ a: 1 }))
        })
        expect((await twice(url)).headers['x-length']).toBe('7')
        await waitFor('the hooks', () => responses === 2)
      })

      it('works with inject, bodies and all', async () => {
        const { app } = await start(async (app, protect) => {
          await protect()
          app.post('/', async (req) => ({ body: req.body, at: Math.random() }))
        })
        const key = freshKey()
        const inject = (payload: object) =>
          app.inject({ method: 'POST', url: '/', headers: { 'idempotency-key': key }, payload })
        const first = await inject({ a: 1 })
        expect(first.statusCode).toBe(200)
        const replay = await inject({ a: 1 })
        expect(replay.headers['idempotent-replayed']).toBe('true')
        expect(replay.body).toBe(first.body)
        expect((await inject({ a: 2 })).statusCode).toBe(422)
      })
    })

    describe('with plugins', () => {
      describe.each(['before', 'after'])('@fastify/compress, registered %s', (where) => {
        const payloads: Record<string, (reply: import('fastify').FastifyReply) => unknown> = {
          'a large object': (reply) => reply.send({ text: 'x'.repeat(5000) }),
          'a small object': (reply) => reply.send({ text: 'x' }),
          'a stream': (reply) =>
            reply.type('text/plain').send(Readable.from(['a'.repeat(3000), 'b'.repeat(3000)])),
          'an object too large to be kept': (reply) => reply.send({ text: 'x'.repeat(50_000) }),
        }
        it.each(Object.entries(payloads))('%s', async (name, handler) => {
          const { url } = await start(async (app, protect) => {
            if (where === 'before') await app.register(compress)
            await protect({ maxBody: 20_000 })
            if (where === 'after') await app.register(compress)
            app.post('/', (_request, reply) => handler(reply))
          })
          const key = freshKey()
          for (const encoding of ['gzip', 'br']) {
            const headers = { 'Accept-Encoding': encoding }
            const ask = () => request(url, { key: `${key}-${encoding}`, headers })
            const first = await ask()
            expect(first.status).toBe(200)
            const unpack = encoding === 'gzip' ? gunzipSync : brotliDecompressSync
            const packed = first.headers['content-encoding'] === encoding
            expect(packed).toBe(name !== 'a small object')
            const plain = packed ? unpack(first.body) : first.body
            expect(plain.toString()).toMatch(/^(\{"text":"x+"\}|a+b+)$/)
            const replay = await ask()
            // Compressed before it is recorded, it is small enough.
            if (name.includes('too large') && where === 'after') {
              expect(replay.headers['idempotent-replayed']).toBe('true')
            } else same(replay, first)
          }
        })
      })

      it('@fastify/cors: the headers of this request, not of the first, and the marker readable', async () => {
        const { url } = await start(async (app, protect) => {
          await app.register(cors, { origin: ['https://a.example', 'https://b.example'] })
          await protect()
          app.post('/', async () => ({ a: 1 }))
        })
        const key = freshKey()
        const ask = (origin: string) => request(url, { key, headers: { Origin: origin } })
        const first = await ask('https://a.example')
        expect(first.headers['access-control-allow-origin']).toBe('https://a.example')
        const replay = await ask('https://b.example')
        expect(replay.body).toEqual(first.body)
        expect(replay.headers['access-control-allow-origin']).toBe('https://b.example')
        expect(replay.headers['access-control-expose-headers']).toBe(
          'Idempotent-Replayed, Retry-After',
        )
      })

      it('@fastify/cors: a timeout is readable too', async () => {
        const { url } = await start(async (app, protect) => {
          await app.register(cors, { origin: true })
          await protect({ timeout: 50 })
          app.post('/', () => new Promise(() => {}))
        })
        const answer = await request(url, {
          key: freshKey(),
          headers: { Origin: 'https://a.example' },
        })
        expect(answer.status).toBe(504)
        expect(answer.headers['access-control-allow-origin']).toBe('https://a.example')
      })

      it('@fastify/multipart: files count, boundaries do not, and the handler gets them', async () => {
        const { url } = await start(async (app, protect) => {
          await app.register(multipart)
          await protect()
          app.post('/', async (req) => {
            const file = await req.file()
            return {
              name: file?.filename,
              text: (await file?.toBuffer())?.toString(),
              at: Math.random(),
            }
          })
        })
        const key = freshKey()
        const send = (boundary: string, text: string) =>
          request(url, {
            key,
            body: `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n${text}\r\n--${boundary}--\r\n`,
            headers: { 'Content-Type': `multipart/form-data; boundary=${boundary}` },
          })
        const large = 'x'.repeat(200_000)
        const first = await send('aaaa', large)
        expect(first.json).toMatchObject({ name: 'a.txt', text: large })
        same(await send('bbbb', large), first)
        expect((await send('aaaa', `${large}y`)).status).toBe(422)
      })
    })

    it('over HTTP/2 requests are kept apart, replayed and cut off', async () => {
      const pawl = await startPawl()
      const app = fastify({ http2: true }) as unknown as FastifyInstance
      await app.register(idempotency, { pawl, timeout: 200 })
      let runs = 0
      app.post('/', async (req) => {
        runs++
        return { body: req.body }
      })
      let answer: (() => void) | undefined
      app.post('/slow', async () => {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        return 'late'
      })
      app.post('/raw', (_request, reply) => {
        reply.hijack()
        reply.raw.setHeader('x-raw', 'yes')
        reply.raw.write('raw ')
        reply.raw.end('bytes')
      })
      const url = await app.listen({ port: 0, host: '127.0.0.1' })
      const client = http2.connect(url)
      const post = async (path: string, key: string, body: object) => {
        const stream = client.request({
          ':method': 'POST',
          ':path': path,
          'content-type': 'application/json',
          'idempotency-key': key,
        })
        stream.end(JSON.stringify(body))
        const [headers] = await once(stream, 'response')
        return { status: headers[':status'], headers, text: (await stream.toArray()).join('') }
      }
      const key = freshKey()
      const first = await post('/', key, { a: 1 })
      expect([first.status, first.text]).toEqual([200, '{"body":{"a":1}}'])
      const replay = await post('/', key, { a: 1 })
      expect([replay.status, replay.text]).toEqual([200, first.text])
      expect(replay.headers['idempotent-replayed']).toBe('true')
      expect((await post('/', key, { a: 2 })).status).toBe(422)
      expect(runs).toBe(1)
      const raw = freshKey()
      for (const _ of ['first', 'replay']) {
        const answered = await post('/raw', raw, {})
        expect([answered.text, answered.headers['x-raw']]).toEqual(['raw bytes', 'yes'])
      }
      const slow = freshKey()
      expect((await post('/slow', slow, {})).status).toBe(504)
      answer?.()
      await waitFor(
        'the late answer',
        async () => (await pawl.find({ key: slow }))?.status === 'done',
      )
      expect((await post('/slow', slow, {})).text).toBe('late')
      client.close()
      await app.close()
    })
  },
)
