import type { Express, Request } from 'express'
import { describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import { idempotency as fetchIdempotency } from '../../lib/adapters/fetch/fetch.ts'
import { createProblem, type ProblemCode } from '../../lib/http/problem.ts'
import { Pawl } from '../../lib/index.ts'
import { serveFetch } from '../adapters/conformance/drivers/node-server.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, type RawResponse, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()

/** What a client may build on: docs/problems.md. */
const promised: Record<ProblemCode, { status: number; retryAfter: boolean }> = {
  'key-missing': { status: 400, retryAfter: false },
  'key-malformed': { status: 400, retryAfter: false },
  'request-mismatch': { status: 422, retryAfter: false },
  'in-progress': { status: 409, retryAfter: true },
  'outcome-unknown': { status: 409, retryAfter: false },
  'timed-out': { status: 504, retryAfter: true },
  'store-unavailable': { status: 503, retryAfter: true },
  'body-too-large': { status: 413, retryAfter: false },
  'body-unreadable': { status: 400, retryAfter: false },
  'body-not-kept': { status: 200, retryAfter: false },
  'handler-failed': { status: 500, retryAfter: false },
  'execution-not-found': { status: 404, retryAfter: false },
  'method-not-allowed': { status: 405, retryAfter: false },
}

function expectProblem(answer: RawResponse, code: ProblemCode, status = promised[code].status) {
  expect(answer.status).toBe(status)
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8')
  expect(answer.headers['content-length']).toBe(String(answer.body.length))
  expect(answer.headers['cache-control']).toBe('no-store')
  expect(answer.json).toEqual({
    type: `urn:pawl:problem:${code}`,
    title: expect.stringMatching(/^[A-Z].{10,80}$/),
    status,
    detail: expect.stringMatching(/^[A-Z].*\.$/),
    instance: expect.stringMatching(/^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
    // For clients made for Stripe's API, which tell failure by it.
    ...(status >= 400 && {
      error: { type: 'idempotency_error', code, message: answer.json.detail },
    }),
  })
  const retryAfter = answer.headers['retry-after']
  if (promised[code].retryAfter) expect(retryAfter).toMatch(/^[1-9]\d?$/)
  else expect(retryAfter).toBeUndefined()
}

describe.each(expressVersions)('Problem documents, Express $version', ({ express }) => {
  const start = (
    options: IdempotencyOptions<Request>,
    routes: (app: Express) => void = (app) => app.post('/', (_req, res) => res.send('x')),
  ) => startApp(database.url, options, routes, { express })

  /** Each situation, brought about; resolves to the problem. */
  const situations: Record<ProblemCode, () => Promise<RawResponse>> = {
    'key-missing': async () => request((await start({ required: true })).url),
    'key-malformed': async () => request((await start({})).url, { key: '"open' }),
    'request-mismatch': async () => {
      const { url } = await start({})
      const key = freshKey()
      await request(url, { key, body: 'one' })
      return request(url, { key, body: 'two' })
    },
    'in-progress': async () => {
      let answer: (() => void) | undefined
      const { url } = await start({ wait: 0 }, (app) =>
        app.post('/', (_req, res) => {
          answer = () => res.end()
        }),
      )
      const key = freshKey()
      const first = request(url, { key })
      await waitFor('the handler', () => answer)
      const refused = await request(url, { key })
      answer?.()
      await first
      return refused
    },
    'outcome-unknown': async () => {
      const { url } = await start({ timeout: 20 }, (app) => app.post('/', () => {}))
      const key = freshKey()
      await request(url, { key })
      return request(url, { key })
    },
    'timed-out': async () => {
      const { url } = await start({ timeout: 20 }, (app) => app.post('/', () => {}))
      return request(url, { key: freshKey() })
    },
    'store-unavailable': async () => {
      const { url, pawl } = await start({})
      await pawl.stop()
      return request(url, { key: freshKey() })
    },
    'body-too-large': async () =>
      request((await start({ maxRequestBody: 3 })).url, { key: freshKey(), body: 'four' }),
    'body-unreadable': async () => {
      const { url } = await start({ fingerprint: () => '\ud800' })
      return request(url, { key: freshKey() })
    },
    'body-not-kept': async () => {
      const { url } = await start({ maxBody: 0 })
      const key = freshKey()
      await request(url, { key })
      return request(url, { key })
    },
    'handler-failed': async () => {
      const { pawl } = await start({})
      const protect = fetchIdempotency(pawl)
      const { url, close } = await serveFetch(
        protect(() => {
          throw new Error('boom')
        }),
      )
      return request(url, { key: freshKey() }).finally(close)
    },
    'execution-not-found': async () => {
      const { url } = await start({}, (app) => app.get('/:id', (...args) => status(...args)))
      return request(`${url}/x`, { method: 'GET' })
    },
    'method-not-allowed': async () => {
      const { url } = await start({}, (app) => app.use((...args) => status(...args)))
      return request(url, { method: 'PUT' })
    },
  }
  const status = new Pawl({ database: database.url }).statusHandler({ authorize: () => true })

  it.each(Object.keys(promised) as ProblemCode[])(
    '%s is one, with what a client may build on',
    async (code) => {
      expectProblem(await situations[code](), code)
    },
  )

  it('body-not-kept has the status of the answer it stands in for', async () => {
    const { url } = await start({ maxBody: 3 }, (app) =>
      app.post('/', (_req, res) => {
        res.status(207).set('ETag', '"x"').set('X-Order', '7').send('four')
      }),
    )
    const key = freshKey()
    await request(url, { key })
    const replay = await request(url, { key })
    expectProblem(replay, 'body-not-kept', 207)
    expect(replay.headers['x-order']).toBe('7')
    // They would describe a body that is not there.
    expect(replay.headers.etag).toBeUndefined()
  })

  it('the instance names the execution, the same for everybody who asks about it', async () => {
    const { url, pawl } = await start({ timeout: 20 }, (app) => app.post('/', () => {}))
    const key = freshKey()
    const instance = async () => (await request(url, { key })).json.instance
    const timedOut = await instance()
    expect(await instance()).toBe(timedOut)
    expect(timedOut).toBe(`urn:uuid:${(await pawl.find({ key }))?.id}`)
  })

  it('where there is no execution, each occurrence has a name of its own', async () => {
    const { url } = await start({})
    const ask = async () => (await request(url, { key: '"open' })).json.instance
    expect(await ask()).not.toBe(await ask())
  })

  it('nothing that the client sent comes back in it', async () => {
    const { url } = await start({})
    const refused = await request(url, { key: '<script>alert(1)</script>' })
    expect(refused.status).toBe(400)
    expect(refused.text).not.toContain('script')
  })

  it('does not carry what the handler set before it was cut off', async () => {
    const app = await start({ timeout: 30 }, (app) =>
      app.post('/', (_req, res) => {
        res.status(201).set({ 'X-Half': 'done', 'Content-Encoding': 'br', ETag: '"x"' })
        res.type('html')
      }),
    )
    const cut = await request(app.url, { key: freshKey() })
    expectProblem(cut, 'timed-out')
    expect(cut.headers['x-half']).toBeUndefined()
    expect(cut.headers['content-encoding']).toBeUndefined()
    expect(cut.headers.etag).toBeUndefined()
  })
})

describe('createProblem()', () => {
  it.each(Object.entries(promised))('%s keeps its status and type', (code, { status }) => {
    const { status: given, body } = createProblem(code as ProblemCode, 'Why.', 'urn:uuid:x')
    expect(given).toBe(status)
    expect(JSON.parse(body.toString())).toMatchObject({ type: `urn:pawl:problem:${code}`, status })
  })
})
