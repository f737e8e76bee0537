import { createServer } from 'node:http'
import type { Request, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { executionId } from '../../lib/engine/execution-id.ts'
import { encodeError, encodeValue } from '../../lib/engine/values/value-codec.ts'
import { type ObservedExecution, Pawl, type StatusOptions } from '../../lib/index.ts'
import { serveFetch } from '../adapters/conformance/drivers/node-server.ts'
import { Gate } from '../adapters/conformance/gate.ts'
import { silent, startApp } from '../helpers/app.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { openEvents } from '../helpers/events.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, type RequestOptions, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []
afterEachTest(async () => {
  await Promise.all(closing.splice(0).map((close) => close()))
})

type Given = Partial<StatusOptions<unknown>>
type Handler = (req: Request, res: Response) => unknown
const user = (of: { headers: Request['headers'] } | { headers: Headers }) =>
  (of.headers instanceof Headers ? of.headers.get('x-user') : of.headers['x-user']) ?? 'nobody'

/** Where it is asked. */
const endpoints: {
  name: string
  serve: (pawl: Pawl, options: Given) => Promise<string>
}[] = [
  {
    name: "Node's http",
    async serve(pawl, options) {
      const server = createServer(
        pawl.statusHandler({ authorize: (req, { scope }) => user(req) === scope, ...options }),
      )
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      closing.push(async () => {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      })
      return `http://127.0.0.1:${(server.address() as { port: number }).port}`
    },
  },
  {
    name: 'Fetch',
    async serve(pawl, options) {
      const authorize = async (of: globalThis.Request, { scope }: ObservedExecution) =>
        user(of) === scope
      const server = await serveFetch(pawl.statusResponse({ authorize, ...options }))
      closing.push(server.close)
      return server.url
    },
  },
]

describe.each(endpoints)('The status of an execution, by $name', ({ serve }) => {
  async function start(
    handler: Handler = (_req, res) => res.json({}),
    options: Given = {},
    pawlOptions: object = {},
  ) {
    const app = await startApp(
      database.url,
      {
        scope: (req) => user(req) as string,
        resumable: true,
        wait: 0,
        respondAsyncAfter: 1,
        statusUrl: '/operations/:id',
      },
      (app) => app.post('/orders', handler),
      { pawl: { drainTimeout: 0, ...pawlOptions } },
    )
    const base = await serve(app.pawl, options)
    const key = freshKey()
    const headers = { 'X-User': 'ann' }
    const url = `${base}/operations/${executionId('ann', key)}`
    return {
      app,
      base,
      key,
      id: executionId('ann', key),
      url,
      post: () => request(`${app.url}/orders`, { key, headers }),
      get: (more: RequestOptions = {}, at = url) =>
        request(at, { method: 'GET', ...more, headers: { ...headers, ...more.headers } }),
      events: (more: Record<string, string> = {}) => openEvents(url, { ...headers, ...more }),
    }
  }

  /** Somebody waits for this one. */
  const awaited = (key: string) =>
    waitFor('the poll', async () => {
      const sql = 'select awaited from pawl.executions where key = $1'
      return (await database.pool.query(sql, [key])).rows[0].awaited as boolean
    })

  it('is 202 while it runs, and then the response as it is stored, but not to be cached', async () => {
    const gate = new Gate()
    const { post, get, id } = await start(async (_req, res) => {
      await gate.pass()
      res.status(201).set('X-Order', '7').set('Cache-Control', 'public, max-age=60')
      res.type('png').send(Buffer.from([137, 80, 0, 255]))
    })
    expect((await get()).status).toBe(404)
    expect((await post()).headers.location).toBe(`/operations/${id}`)
    const running = await get()
    expect(running.status).toBe(202)
    expect(running.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      'retry-after': '1',
    })
    expect(running.json).toEqual({
      id,
      kind: 'request',
      name: 'POST /orders',
      status: 'running',
      attempt: 1,
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    })
    expect(Math.abs(Date.parse(running.json.createdAt) - Date.now())).toBeLessThan(600_000)
    await gate.open()
    const final = await get({ headers: { Prefer: 'wait=20' } })
    expect(final.status).toBe(201)
    expect(final.body).toEqual(Buffer.from([137, 80, 0, 255]))
    expect(final.headers).toMatchObject({
      'content-type': 'image/png',
      'x-order': '7',
      'cache-control': 'no-store',
      'idempotent-replayed': 'true',
    })
    const head = await get({ method: 'HEAD' })
    expect([head.status, head.body.length, head.headers['x-order']]).toEqual([201, 0, '7'])
  })

  it.each([
    ['Prefer', { headers: { Prefer: 'wait=30' } }, ''],
    ['the query', {}, '?wait=30'],
  ])('waits by %s, and answers as soon as it is final', async (_, options, query) => {
    const gate = new Gate()
    const { post, get, url, key } = await start(async (_req, res) => {
      await gate.pass()
      res.json({ done: true })
    })
    await post()
    const asked = get(options, url + query)
    await awaited(key)
    await gate.open()
    expect((await asked).json).toEqual({ done: true })
  })

  it('does not wait for an execution that no process runs: its client may have to act', async () => {
    const gate = new Gate()
    const { post, get, key } = await start(async (_req, res) => {
      await gate.pass()
      res.sendStatus(500)
    })
    await post()
    const asked = get({ headers: { Prefer: 'wait=30' } })
    await awaited(key)
    await gate.open()
    expect((await asked).json).toMatchObject({ status: 'released' })
    expect((await get({ headers: { Prefer: 'wait=30' } })).json.status).toBe('released')
  })

  it('waits no longer than maxWait, and reports how long it waited', async () => {
    const { post, get, url } = await start(() => {}, { maxWait: '1s' })
    await post()
    const started = performance.now()
    const preferred = await get({ headers: { Prefer: 'wait=600' } })
    expect(preferred.status).toBe(202)
    expect(preferred.headers['preference-applied']).toBe('wait=1')
    expect(performance.now() - started).toBeGreaterThan(900)
    const byQuery = await get({}, `${url}?wait=1`)
    expect(byQuery.status).toBe(202)
    expect(byQuery.headers['preference-applied']).toBeUndefined()
    for (const wait of ['-1', 'x', '1e9', '']) {
      expect((await get({}, `${url}?wait=${wait}`)).status).toBe(202)
    }
  })

  it('the id of another client, an unknown and a malformed id get the same answer: 404', async () => {
    const { post, get, url, base } = await start()
    await post()
    await waitFor('the end', async () => (await get()).status === 200)
    const unknown = `${base}/operations/${executionId('ann', 'never')}`
    const answers = [
      await get({ headers: { 'X-User': 'bob' } }),
      await get({ method: 'HEAD', headers: { 'X-User': 'bob' } }),
      await get({}, unknown),
      await get({}, `${base}/operations/7`),
      await get({}, `${base}/operations/`),
      await get({}, `${base}/`),
      await get({}, `${url}x`),
      await get({}, `${base}/operations/${"'".padEnd(36, '0')}`),
      await get({}, `${base}/operations/%00`),
    ]
    for (const { status, json } of answers) {
      expect(status).toBe(404)
      if (json) expect(json.type).toBe('urn:pawl:problem:execution-not-found')
    }
    const shown = answers.map(({ json }) => json && { ...json, instance: '' })
    expect(shown.filter(Boolean)).toEqual(shown.filter(Boolean).map(() => shown[0]))
    // Upper case, and a slash at the end, are the same id.
    const id = url.split('/').at(-1) as string
    expect((await get({}, `${base}/operations/${id.toUpperCase()}/`)).status).toBe(200)
  })

  it('any result of authorize other than true is a refusal', async () => {
    let says: unknown
    const { post, get } = await start(undefined, { authorize: () => says as boolean })
    await post()
    for (says of [false, undefined, 1, 'yes', {}, Promise.resolve(false)]) {
      expect((await get()).status).toBe(404)
    }
    for (says of [true, Promise.resolve(true)]) {
      await waitFor('the end', async () => (await get()).status === 200)
    }
  })

  it('authorize sees what the execution is', async () => {
    let seen: unknown
    const authorize = (_: unknown, execution: ObservedExecution) => {
      seen = execution
      return false
    }
    const { post, get, id, key } = await start(undefined, { authorize })
    await post()
    await get()
    expect(seen).toEqual({ id, kind: 'request', name: 'POST /orders', scope: 'ann', key })
  })

  it('other methods are refused', async () => {
    const { get } = await start()
    const { status, headers } = await get({ method: 'DELETE' })
    expect([status, headers.allow]).toEqual([405, 'GET, HEAD'])
  })

  it('an expired execution does not exist', async () => {
    const { post, get, key } = await start()
    await post()
    await waitFor('the end', async () => (await get()).status === 200)
    const sql = `update pawl.executions set expires_at = pawl.now() - interval '1 s' where key = $1`
    await database.pool.query(sql, [key])
    expect((await get()).status).toBe(404)
  })

  it('a dead process and a released request can be told from a running one', async () => {
    const gate = new Gate()
    const { post, get, key, events } = await start(async (_req, res) => {
      await gate.pass()
      res.sendStatus(503)
    })
    await post()
    const sql = 'update pawl.executions set owner = gen_random_uuid() where key = $1'
    const { rows } = await database.pool.query('select owner from pawl.executions where key = $1', [
      key,
    ])
    await database.pool.query(sql, [key])
    expect((await get()).json).toMatchObject({ status: 'interrupted', attempt: 1 })
    await database.pool.query('update pawl.executions set owner = $2 where key = $1', [
      key,
      rows[0].owner,
    ])
    const stream = await events()
    expect(await stream.next()).toMatchObject({ event: 'status', data: { status: 'running' } })
    await gate.open()
    expect(await stream.next()).toMatchObject({ event: 'status', data: { status: 'released' } })
    expect((await get()).json.status).toBe('released')
  })

  it('a body that was not stored is reported as such', async () => {
    const { post, get, key } = await start()
    await post()
    await waitFor('the end', async () => (await get()).status === 200)
    await database.pool.query('update pawl.executions set response_body = null where key = $1', [
      key,
    ])
    const answer = await get()
    expect([answer.status, answer.json.type]).toEqual([200, 'urn:pawl:problem:body-not-kept'])
  })

  it('decrypts stored responses', async () => {
    const encryptionKeys = [{ id: 'k', key: Buffer.alloc(32, 7) }]
    const { post, get, events } = await start(undefined, {}, { encryptionKeys })
    await post()
    const final = await waitFor('the end', async () => {
      const answer = await get()
      return answer.status === 200 ? answer : null
    })
    expect(final.json).toEqual({})
    expect((await (await events()).rest()).at(-1)?.data.response.body).toBe('{}')
  })

  describe('Workflows', () => {
    const became = async (status: number, body: Buffer | null) => {
      const started = await start()
      await started.post()
      await waitFor('the end', async () => (await started.get()).status === 200)
      await database.pool.query(
        `update pawl.executions set kind = 'workflow', name = 'ship', response_status = $2,
           response_headers = '[]', response_body = $3 where key = $1`,
        [started.key, status, body],
      )
      const answer = await started.get()
      expect(answer.status).toBe(200)
      expect(answer.headers['idempotent-replayed']).toBeUndefined()
      const events = await (await started.events()).rest()
      expect(events).toEqual([{ event: 'done', id: expect.any(String), data: answer.json }])
      const { id, kind, name, ...rest } = answer.json
      expect([id, kind, name]).toEqual([started.id, 'workflow', 'ship'])
      return rest
    }

    it('a result is plain JSON', async () => {
      const at = new Date(0)
      expect(await became(200, encodeValue({ order: 7 }))).toEqual({
        status: 'done',
        result: { order: 7 },
      })
      const rich = { at, big: 12n, map: new Map([['a', 1]]), set: new Set([2]), none: undefined }
      expect(await became(200, encodeValue(rich))).toEqual({
        status: 'done',
        result: { at: at.toISOString(), big: '12', map: [['a', 1]], set: [2], none: null },
      })
      expect(await became(200, null)).toEqual({ status: 'done', result: null })
    })

    it('an error has its name and its message, and nothing else', async () => {
      const error = Object.assign(new RangeError('too many'), { secret: 1 })
      expect(await became(500, encodeError(error))).toEqual({
        status: 'failed',
        error: { name: 'RangeError', message: 'too many' },
      })
      expect(await became(499, encodeError(new Error('by hand')))).toMatchObject({
        status: 'cancelled',
        error: { message: 'by hand' },
      })
      expect(await became(500, encodeValue('thrown text'))).toMatchObject({
        error: { name: 'Error', message: 'thrown text' },
      })
    })
  })

  describe('Server-sent events', () => {
    it('report each change, then the outcome, and end', async () => {
      const gate = new Gate()
      const { post, events, id } = await start(async (req, res) => {
        await gate.pass()
        if (req.execution?.attempt === 1) res.sendStatus(500)
        else res.status(201).set('X-Order', '7').json({ grüße: true })
      })
      await post()
      const stream = await events()
      expect(stream.status).toBe(200)
      expect(stream.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
      expect(stream.headers.get('cache-control')).toBe('no-store, no-transform')
      const first = await stream.next()
      expect(first).toMatchObject({
        event: 'status',
        data: { id, kind: 'request', name: 'POST /orders', status: 'running', attempt: 1 },
      })
      await gate.open()
      expect((await stream.next())?.data).toMatchObject({ status: 'released', attempt: 1 })
      await post()
      expect((await stream.next())?.data).toMatchObject({ status: 'running', attempt: 2 })
      await gate.open()
      const [done, ...rest] = await stream.rest()
      expect(rest).toEqual([])
      expect(done).toMatchObject({
        event: 'done',
        data: {
          id,
          status: 'done',
          response: {
            status: 201,
            headers: { 'content-type': 'application/json; charset=utf-8', 'x-order': '7' },
            body: '{"grüße":true}',
          },
        },
      })
      const ids = [first?.id, done?.id]
      expect(new Set(ids).size).toBe(2)
    })

    it('a client that reconnects gets only new events', async () => {
      const gate = new Gate()
      const { post, events } = await start(async (_req, res) => {
        await gate.pass()
        res.send(Buffer.from([0, 255]))
      })
      await post()
      const stream = await events()
      const first = await stream.next()
      stream.close()
      const again = await events({ 'Last-Event-ID': first?.id as string })
      await gate.open()
      const told = await again.rest()
      expect(told.map(({ event }) => event)).toEqual(['done'])
      expect(told[0]?.data.response).toMatchObject({ body: 'AP8=', encoding: 'base64' })
      // It has heard all of it; 204 tells an EventSource to stop.
      const over = await events({ 'Last-Event-ID': told[0]?.id as string })
      expect(over.status).toBe(204)
      expect(await over.next()).toBeNull()
      // Whoever comes anew, or with something else, gets the outcome.
      for (const id of ['', 'x']) {
        expect((await (await events({ 'Last-Event-ID': id })).rest()).length).toBe(1)
      }
    })

    it('comments keep the stream alive', async () => {
      const { post, events } = await start(() => {}, { heartbeat: 20 })
      await post()
      const stream = await events()
      expect((await stream.next())?.event).toBe('status')
      for (let i = 0; i < 3; i++) expect((await stream.next())?.event).toBe('comment')
    })

    it('are refused like other requests', async () => {
      const { post, events } = await start()
      await post()
      const stream = await events({ 'X-User': 'bob' })
      expect(stream.status).toBe(404)
      expect(stream.headers.get('content-type')).toBe('application/problem+json; charset=utf-8')
    })

    it('end when the process stops, and so do waiting requests', async () => {
      const { app, post, get, events, key } = await start(() => {})
      await post()
      const polling = get({ headers: { Prefer: 'wait=30' } })
      await awaited(key)
      const stream = await events()
      await stream.next()
      await app.pawl.stop()
      expect(await stream.next()).toBeNull()
      expect((await polling).status).toBe(202)
    })
  })

  it('stops waiting when the client disconnects', async () => {
    const { post, get, events } = await start(() => {})
    await post()
    const client = new AbortController()
    const polling = get({ headers: { Prefer: 'wait=30' }, signal: client.signal })
    const stream = await events()
    await stream.next()
    const listening = async () => {
      const { rows } = await database.pool.query(
        `select from pg_stat_activity where datname = current_database() and query = 'listen "pawl"'`,
      )
      return rows.length > 0
    }
    await waitFor('somebody who listens', listening)
    client.abort()
    stream.close()
    await expect(polling).rejects.toThrow()
    await waitFor('nobody to listen', async () => !(await listening()))
    expect((await get()).status).toBe(202)
  })

  it('without the store it is 503, and Retry-After', async () => {
    const pawl = new Pawl({ database: 'postgres://127.0.0.1:1/none', logger: silent })
    const url = await serve(pawl, {})
    const asked = await request(`${url}/operations/${executionId('a', 'b')}`, { method: 'GET' })
    expect(asked.status).toBe(500) // It was never started: a mistake of the app.
    const proxy = await startProxy(database.url)
    closing.push(proxy.close)
    const { get } = await start(undefined, {}, { database: proxy.url, storeTimeout: '1s' })
    proxy.refuse()
    proxy.cut()
    const answer = await get()
    expect([answer.status, answer.json.type]).toEqual([503, 'urn:pawl:problem:store-unavailable'])
    expect(answer.headers['retry-after']).toBe('2')
  })
})

describe('statusHandler()', () => {
  const pawl = new Pawl({ database: 'postgres://localhost/none' })

  it.each(['statusHandler', 'statusResponse'] as const)('%s needs authorize', (name) => {
    const build = (options?: object) => () => pawl[name](options as never)
    for (const options of [undefined, {}, { authorize: true }]) {
      expect(build(options)).toThrow(
        new RegExp(`${name}\\(\\): Option "authorize" is .*no default: ids .* can be guessed`),
      )
    }
    const authorize = () => true
    expect(build({ authorize, maxWait: -1 })).toThrow(/"maxWait" is -1; allowed: /)
    expect(build({ authorize, heartbeat: 0 })).toThrow(/"heartbeat" is 0; allowed: /)
    expect(build({ authorize, wait: 1 })).toThrow(/no option "wait"; there are: authorize, maxWait/)
    expect(build({ authorize })).not.toThrow()
  })

  it('a mistake in authorize goes to the error handler of Express', async () => {
    const key = freshKey()
    const app = await startApp(database.url, {}, (app) => {
      app.post('/', (_req, res) => res.send('x'))
      app.get('/operations/:id', (req, res, next) =>
        app.get('status')(req, res, (error: Error) => next(error && { status: 418, ...error })),
      )
    })
    app.app.set(
      'status',
      app.pawl.statusHandler({
        authorize: () => {
          throw new Error('boom')
        },
      }),
    )
    await request(app.url, { key })
    const url = `${app.url}/operations/${executionId('', key)}`
    expect((await request(url, { method: 'GET' })).status).toBe(418)
  })
})
