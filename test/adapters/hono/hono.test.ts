import { Hono } from 'hono'
import { compress } from 'hono/compress'
import { cors } from 'hono/cors'
import { streamSSE } from 'hono/streaming'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { idempotency } from '../../../lib/adapters/hono/hono.ts'
import { type Execution, Pawl } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { freshKey } from '../../helpers/request.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import { Gate } from '../conformance/gate.ts'

const database = withDatabase()
let pawl: Pawl

beforeEach(async () => {
  pawl = new Pawl({ database: database.apps, drainTimeout: 0, logger: silent })
  await pawl.start()
})
afterEach(() => pawl.stop())

const post = (key: string, body?: string, headers: Record<string, string> = {}) => ({
  method: 'POST',
  headers: { 'Idempotency-Key': key, ...headers },
  ...(body !== undefined && { body }),
})

describe('pawl/hono', () => {
  it('protects the routes it is mounted on, and sees what came before it', async () => {
    interface Signed {
      Variables: { user: string }
    }
    const app = new Hono<Signed>()
    let runs = 0
    app.use(async (c, next) => {
      c.set('user', c.req.header('x-user') ?? '')
      await next()
    })
    app.use('/orders/*', idempotency<Signed>(pawl, { scope: (c) => c.get('user') }))
    app.post('*', (c) => {
      const execution: Execution | undefined = c.get('execution')
      return c.json({ run: ++runs, scope: execution?.scope ?? null })
    })
    const key = freshKey()
    const ask = async (path: string, user: string) =>
      (await app.request(path, post(key, 'x', { 'X-User': user }))).json()
    expect(await ask('/orders/', 'a')).toEqual({ run: 1, scope: 'a' })
    expect(await ask('/orders/', 'b')).toEqual({ run: 2, scope: 'b' })
    expect(await ask('/orders/', 'a')).toEqual({ run: 1, scope: 'a' })
    expect(await ask('/free', 'a')).toEqual({ run: 3, scope: null })
  })

  it('a body that Hono has parsed before is still compared by its bytes', async () => {
    const app = new Hono()
    app.use(async (c, next) => {
      await c.req.json()
      await next()
    })
    app.use(idempotency(pawl))
    app.post('/', async (c) => c.json(await c.req.json()))
    const key = freshKey()
    const ask = (body: string) => app.request('/', post(key, body))
    expect(await (await ask('{"a":1}')).json()).toEqual({ a: 1 })
    expect((await ask('{"a":1}')).headers.get('idempotent-replayed')).toBe('true')
    expect((await ask('{"a":2}')).status).toBe(422)
  })

  it('CORS: the headers of this request, not of the first, and the marker readable', async () => {
    const app = new Hono()
    app.use(cors({ origin: ['https://a.example', 'https://b.example'], exposeHeaders: ['X-One'] }))
    app.use(idempotency(pawl))
    app.post('/', (c) => c.json({ at: Math.random() }, 201, { 'X-One': '1' }))
    const key = freshKey()
    const ask = (origin: string) => app.request('/', post(key, '', { Origin: origin }))
    const first = await ask('https://a.example')
    expect(first.headers.get('access-control-allow-origin')).toBe('https://a.example')
    const replay = await ask('https://b.example')
    expect(replay.status).toBe(201)
    expect(replay.headers.get('access-control-allow-origin')).toBe('https://b.example')
    expect(replay.headers.get('access-control-expose-headers')).toBe(
      'X-One, Idempotent-Replayed, Retry-After',
    )
    expect(replay.headers.get('x-one')).toBe('1')
    expect(await replay.text()).toBe(await first.text())
  })

  it.each(['before', 'after'])('compress, mounted %s: the same bytes again', async (where) => {
    const app = new Hono()
    if (where === 'before') app.use(compress())
    app.use(idempotency(pawl))
    if (where === 'after') app.use(compress())
    app.post('/', (c) => c.text('x'.repeat(5000)))
    const key = freshKey()
    const ask = () => app.request('/', post(key, '', { 'Accept-Encoding': 'gzip' }))
    const first = await ask()
    expect(first.headers.get('content-encoding')).toBe('gzip')
    const bytes = Buffer.from(await first.arrayBuffer())
    const replay = await ask()
    expect(replay.headers.get('idempotent-replayed')).toBe('true')
    expect(replay.headers.get('content-encoding')).toBe('gzip')
    expect(Buffer.from(await replay.arrayBuffer())).toEqual(bytes)
  })

  it('streamSSE flows, and is not kept', async () => {
    const app = new Hono()
    app.use(idempotency(pawl))
    app.post('/', (c) => streamSSE(c, async (stream) => stream.writeSSE({ data: 'one' })))
    const key = freshKey()
    expect(await (await app.request('/', post(key))).text()).toBe('data: one\n\n')
    const replay = (await (await app.request('/', post(key))).json()) as { type: string }
    expect(replay.type).toBe('urn:pawl:problem:body-not-kept')
  })

  it('what app.onError and app.notFound answer is stored and replayed', async () => {
    const app = new Hono()
    let failures = 0
    app.use(idempotency(pawl))
    app.post('/fail', () => {
      throw new Error('boom')
    })
    app.onError((error, c) => c.text(`${error.message} ${++failures}`, 500))
    app.notFound((c) => c.text(`nothing here ${Math.random()}`, 404))
    for (const path of ['/fail', '/nowhere']) {
      const key = freshKey()
      const first = await app.request(path, post(key))
      const replay = await app.request(path, post(key))
      expect(replay.headers.get('idempotent-replayed')).toBe('true')
      expect([replay.status, await replay.text()]).toEqual([first.status, await first.text()])
    }
    expect(failures).toBe(1)
  })

  it('mistakes of the app go to app.onError', async () => {
    const app = new Hono()
    app.use(idempotency(pawl, { scope: () => undefined as never }))
    app.post('/', (c) => c.text('x'))
    app.onError((error, c) => c.json({ code: (error as { code?: string }).code }, 500))
    const response = await app.request('/', post(freshKey()))
    expect([response.status, await response.json()]).toEqual([500, { code: 'scope-invalid' }])
  })

  it('mounted twice, the first that finds a key handles the request', async () => {
    const app = new Hono()
    app.use(
      idempotency(pawl, { scope: () => 'outer' }),
      idempotency(pawl, { scope: () => 'inner' }),
    )
    app.post('/', (c) => c.text(c.get('execution')?.scope ?? ''))
    expect(await (await app.request('/', post(freshKey()))).text()).toBe('outer')
  })

  it('wrong options are errors at once', () => {
    expect(() => idempotency(undefined as never)).toThrow(/not a Pawl/)
    expect(() => idempotency(pawl, { wait: 'soon' })).toThrow(/"wait" is "soon"/)
  })

  it('after a 202 the handler and the middleware outside each see their own response', async () => {
    const app = new Hono()
    const gate = new Gate()
    const seen: unknown[] = []
    app.use(cors())
    app.use(async (c, next) => {
      c.header('X-Before', 'yes')
      await next()
      c.header('X-After', 'yes')
      c.header('Vary', 'Prefer', { append: true })
      c.header('Preference-Applied', undefined)
      c.res.headers.set('X-Status', String(c.res.status))
      seen.push(c.finalized)
    })
    const statusUrl = '/operations/:id'
    app.use(idempotency(pawl, { resumable: true, wait: 0, statusUrl }))
    app.onError((error, c) => c.json({ error: error.message }, 418))
    app.post('/:how', async (c) => {
      await gate.pass()
      seen.push(c.finalized)
      c.header('X-Late', 'yes')
      if (c.req.param('how') === 'throws') throw new Error('boom')
      return c.json({ late: true }, 201)
    })
    for (const [how, status, body] of [
      ['answers', 201, { late: true }],
      ['throws', 418, { error: 'boom' }],
    ] as const) {
      const key = freshKey()
      const ask = (prefer: Record<string, string> = { Prefer: 'respond-async' }) =>
        app.request(`/${how}`, post(key, 'x', { Origin: 'https://shop.example', ...prefer }))
      const first = await ask()
      expect(first.status).toBe(202)
      expect(await first.json()).toMatchObject({ status: 'running' })
      expect(Object.fromEntries(first.headers)).toMatchObject({
        'x-before': 'yes',
        'x-after': 'yes',
        'x-status': '202',
        'access-control-allow-origin': '*',
        'access-control-expose-headers': 'Idempotent-Replayed, Retry-After, Location',
      })
      expect(first.headers.get('vary')).toContain('Prefer')
      expect(first.headers.has('preference-applied')).toBe(false)
      expect(first.headers.has('x-late')).toBe(false)
      await gate.open()
      const final = await waitFor('the outcome', async () => {
        const answer = await ask({})
        return answer.status === 409 ? null : answer
      })
      expect([final.status, await final.json()]).toEqual([status, body])
      expect(final.headers.get('x-late')).toBe('yes')
      expect(final.headers.get('location')).toBeNull()
      expect(final.headers.get('x-status')).toBe(String(status))
    }
    expect(seen.slice(0, 2)).toEqual([true, false])
  })
})
