import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { executionId } from '../../lib/engine/execution-id.ts'
import { type Duration, Pawl } from '../../lib/index.ts'
import { Gate } from '../adapters/conformance/gate.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const base = { resumable: true, statusUrl: '/operations/:id', wait: 0 }

const stored = async (key: string) =>
  (await database.pool.query('select * from pawl.execution_log where key = $1', [key])).rows[0]

const settled = (key: string, status: string) =>
  waitFor(`${key} to be ${status}`, async () => (await stored(key))?.status === status)

const text = 'a'.repeat(300_000)
const chunks = () => Readable.from(Array.from({ length: 30 }, () => text.slice(0, 10_000)))

/** Ways to answer that look at the response, or at whether its client is still there. */
const ways: [string, (res: Response, req: Request) => unknown][] = [
  ['json', (res) => void res.json({ text })],
  ['pipe', (res) => void chunks().pipe(res)],
  ['pipeline, whose end it waits for', (res) => pipeline(chunks(), res)],
  [
    'sendFile',
    async (res) => {
      const file = join(tmpdir(), `pawl-async-${process.pid}.txt`)
      await writeFile(file, text)
      res.sendFile(file)
    },
  ],
  [
    'write, and waiting for drain',
    async (res) => {
      for (let i = 0; i < 30; i++) {
        if (!res.write(text.slice(0, 10_000))) await once(res, 'drain')
      }
      await new Promise<void>((resolve) => res.end(resolve))
    },
  ],
  [
    'whatever, unless the client is gone',
    (res) => {
      if (res.destroyed || res.closed || res.writableEnded || res.headersSent) return
      res.send(text)
    },
  ],
]

describe.each(expressVersions)('Answered before the handler, Express $version', ({ express }) => {
  const start = (
    options: IdempotencyOptions<Request>,
    handler: RequestHandler,
    drainTimeout: Duration = 0,
  ) =>
    startApp(
      database.url,
      { ...base, ...options },
      (app) => {
        app.post('/', handler)
        app.use(((error, _req, res, _next) => {
          res.status(500).json({ code: error.code, message: error.message })
        }) as ErrorRequestHandler)
      },
      { express, pawl: { drainTimeout } },
    )

  it.each(ways)('the handler answers by %s, and all of it is stored', async (_, answer) => {
    const gate = new Gate()
    const events: string[] = []
    const { url } = await start({ respondAsyncAfter: 1 }, async (req, res, next) => {
      for (const event of ['close', 'aborted']) res.on(event, () => events.push(event))
      await gate.pass()
      try {
        events.push('answering')
        await answer(res, req)
        events.push('answered')
      } catch (error) {
        next(error)
      }
    })
    const key = freshKey()
    expect((await request(url, { key })).status).toBe(202)
    await new Promise((resolve) => setTimeout(resolve, 50)) // Node has closed the response.
    await gate.open()
    await settled(key, 'done')
    const outcome = await request(url, { key })
    expect(outcome.status).toBe(200)
    expect(outcome.text).toContain(text)
    await waitFor('the end', () => events.includes('answered') && events.includes('close'))
    expect(events.filter((event) => event !== 'answered')).toEqual(['answering', 'close'])
  })

  it('a response that had begun is replaced whole', async () => {
    const gate = new Gate()
    const { url } = await start({ respondAsyncAfter: 1 }, async (_req, res) => {
      res.set('X-Early', 'yes').status(201).type('text')
      res.write('one ')
      await gate.pass()
      res.end('two')
    })
    const key = freshKey()
    const first = await request(url, { key })
    expect(first.status).toBe(202)
    expect(first.headers['x-early']).toBeUndefined()
    expect(first.json.status).toBe('running')
    await gate.open()
    await settled(key, 'done')
    const outcome = await request(url, { key })
    expect([outcome.status, outcome.text, outcome.headers['x-early']]).toEqual([
      201,
      'one two',
      'yes',
    ])
  })

  it('a connection that is kept alive serves other requests meanwhile', async () => {
    const gate = new Gate()
    let handlers = 0
    const { url } = await start({ respondAsyncAfter: 1 }, async (req, res) => {
      handlers++
      if (req.execution?.key === slow) await gate.pass()
      res.json({ socket: req.socket.remotePort })
    })
    const slow = freshKey()
    const post = async (key: string) => {
      const answer = await fetch(url, { method: 'POST', headers: { 'Idempotency-Key': key } })
      return { status: answer.status, body: await answer.text() }
    }
    expect((await post(slow)).status).toBe(202)
    for (let i = 0; i < 5; i++) expect([200, 202]).toContain((await post(freshKey())).status)
    await gate.open()
    await settled(slow, 'done')
    expect((await post(slow)).status).toBe(200)
    expect(handlers).toBe(6)
  })

  it('of the times of route and client the shorter counts', async () => {
    const gate = new Gate()
    const { url } = await start({ respondAsyncAfter: '1 minute' }, async (_req, res) => {
      await gate.pass()
      res.sendStatus(201)
    })
    const ask = (prefer: string) => {
      const key = freshKey()
      return { key, answer: request(url, { key, headers: { Prefer: prefer } }) }
    }
    const { answer } = ask('respond-async, wait=0')
    expect((await answer).status).toBe(202)
    const patient = ask('respond-async, wait=600')
    await settled(patient.key, 'running')
    await gate.open()
    await gate.open()
    expect((await patient.answer).status).toBe(201)
  })

  it('statusUrl may be a function of id and request; what it does wrong runs nothing', async () => {
    let runs = 0
    let value: unknown = 'https://api.example/v1/jobs/7'
    const { url } = await start(
      {
        respondAsyncAfter: 0,
        statusUrl: (id, req) => (value === 'echo' ? `${req.baseUrl}/jobs/${id}` : value) as string,
      },
      () => void runs++,
    )
    expect((await request(url, { key: freshKey() })).headers.location).toBe(value)
    value = 'echo'
    const key = freshKey()
    const { headers, json } = await request(url, { key })
    expect(headers.location).toBe(`/jobs/${executionId('', key)}`)
    expect(json.href).toBe(headers.location)
    for (value of [undefined, '', 'a b', 'a\r\nX: 1', 7, Promise.resolve('/x')]) {
      const refused = freshKey()
      expect((await request(url, { key: refused })).json).toMatchObject({
        code: 'invalid-option',
        message: expect.stringContaining('"statusUrl" returned'),
      })
      expect(await stored(refused)).toBeUndefined()
    }
    expect(runs).toBe(2)
  })

  it('browsers of other origins may read where to go', async () => {
    const { url } = await startApp(
      database.url,
      undefined,
      (app) => {
        app.use((_req, res, next) => {
          res.set('Access-Control-Allow-Origin', '*').set('X-Before', 'cors')
          next()
        })
        app.use((req, res, next) => middleware(req, res, next))
        app.post('/', () => {})
      },
      { express, mount: false },
    )
    const pawl = new Pawl({ database: database.url, drainTimeout: 0 })
    await pawl.start()
    const middleware = idempotency(pawl, { ...base, respondAsyncAfter: 0 })
    const { status, headers } = await request(url, { key: freshKey() })
    expect(status).toBe(202)
    expect(headers['access-control-expose-headers']).toBe(
      'Idempotent-Replayed, Retry-After, Location',
    )
    expect(headers['x-before']).toBe('cors')
    await pawl.stop()
  })

  it('stop waits for a handler that goes on', async () => {
    const gate = new Gate()
    const handler: RequestHandler = async (_req, res) => {
      await gate.pass()
      res.sendStatus(201)
    }
    const app = await start({ respondAsyncAfter: 1 }, handler, '1 minute')
    const key = freshKey()
    expect((await request(app.url, { key })).status).toBe(202)
    const stopped = app.pawl.stop()
    await gate.open()
    await stopped
    expect(await stored(key)).toMatchObject({ status: 'done', response_status: 201 })
  })
})

describe('The options', () => {
  const pawl = new Pawl({ database: 'postgres://localhost/none' })
  const build = (options: object) => () => idempotency(pawl, options)

  it.each<[object, RegExp]>([
    [{ ...base, transaction: true }, /respondAsyncAfter.*"transaction".*commit together.*steps/],
    [{ statusUrl: '/:id' }, /respondAsyncAfter.*may not run again.*recover: true/],
    [{ statusUrl: '/:id', resumable: false }, /may not run again/],
    [{ resumable: true }, /without "statusUrl".*pawl\.statusHandler\(\)/],
    [{ recover: true }, /without "statusUrl"/],
  ])('respondAsyncAfter with %j is refused, and says why', (options, message) => {
    expect(build({ respondAsyncAfter: '5s', ...options })).toThrow(message)
    expect(build(options)).not.toThrow()
  })

  it.each([
    ['/operations/'],
    ['operations/:id'],
    ['//evil.example/:id'],
    ['javascript:alert(:id)'],
    ['/a b/:id'],
    ['/:idx'],
    [7],
  ])('statusUrl: %j is refused', (statusUrl) => {
    expect(build({ resumable: true, statusUrl })).toThrow(/"statusUrl" is .*; allowed: a path or/)
  })

  it.each([['/operations/:id'], ['https://api.example/v1/:id/status?x=1'], [() => '/x']])(
    'statusUrl: %j is fine',
    (statusUrl) => {
      expect(build({ resumable: true, respondAsyncAfter: 0, statusUrl })).not.toThrow()
    },
  )

  it.each([-1, 'soon', '30 days'])('respondAsyncAfter: %j is refused', (respondAsyncAfter) => {
    expect(build({ ...base, respondAsyncAfter })).toThrow(/"respondAsyncAfter" is .*; allowed: /)
  })
})
