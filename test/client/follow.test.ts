import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { followAsync } from '../../lib/client/follow.ts'
import { createIdempotentFetch } from '../../lib/client/index.ts'
import { Gate } from '../adapters/conformance/gate.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { answer, type Sent, type Step, scriptedFetch, silence } from './scripted-fetch.ts'

const database = withDatabase()

const accepted = (location = '/operations/7', more: Record<string, string> = {}) =>
  answer(202, { Location: location, 'Retry-After': '0', ...more })

const standing = (status: string, kind = 'request') =>
  answer(
    202,
    { 'Content-Type': 'application/json', 'Retry-After': '0' },
    JSON.stringify({ kind, status }),
  )

const post = { method: 'POST', body: 'x' }
const shop = 'https://shop.example/orders'

/** What was asked, as method and URL. */
const asked = (sent: Sent[]) =>
  sent.map(({ method, input }) => `${method} ${input instanceof Request ? input.url : input}`)

describe('followAsync', () => {
  it('polls where a 202 points to until the response is another one, and returns that', async () => {
    const { fetch, sent } = scriptedFetch(
      accepted(),
      standing('running'),
      standing('running'),
      answer(201, { 'X-Order': '7' }, 'done'),
    )
    const response = await followAsync(fetch)(shop, post)
    expect([response.status, await response.text()]).toEqual([201, 'done'])
    const status = 'GET https://shop.example/operations/7'
    expect(asked(sent)).toEqual([`POST ${shop}`, status, status, status])
    expect(sent[1]?.headers.get('prefer')).toBe('wait=20')
    expect(sent[1]?.body).toBeUndefined()
  })

  it.each([
    ['another status', answer(201, { Location: '/operations/7' })],
    ['no Location', answer(202)],
    ['another origin', accepted('https://evil.example/operations/7')],
    ['another scheme', accepted('javascript:alert(1)')],
    ['no place at all', accepted('https://')],
  ])('leaves alone an answer with %s', async (_, first) => {
    const { fetch, sent } = scriptedFetch(first)
    const response = await followAsync(fetch)(shop, post)
    expect(response.status).toBe(first.status)
    expect(sent.length).toBe(1)
  })

  it('sends credentials to its own origin only, and nothing of the request', async () => {
    const headers = {
      Authorization: 'Bearer x',
      'X-Tenant': 'ann',
      'Content-Type': 'text/plain',
      'Idempotency-Key': '"k"',
      Prefer: 'respond-async',
    }
    const own = scriptedFetch(accepted(), answer(200))
    await followAsync(own.fetch)(shop, { ...post, headers })
    expect(Object.fromEntries(own.sent[1]?.headers ?? [])).toEqual({
      authorization: 'Bearer x',
      'x-tenant': 'ann',
      prefer: 'wait=20',
    })
    const other = scriptedFetch(accepted('https://status.example/7'), answer(200, {}, 'fine'))
    const follow = followAsync(other.fetch, { origins: ['https://status.example'] })
    expect(await (await follow(shop, { ...post, headers })).text()).toBe('fine')
    expect(Object.fromEntries(other.sent[1]?.headers ?? [])).toEqual({ prefer: 'wait=20' })
  })

  it.each(['interrupted', 'released', 'parked'])(
    'sends the request again when nobody goes on with it: %s',
    async (status) => {
      const { fetch, sent } = scriptedFetch(accepted(), standing(status), answer(201, {}, 'again'))
      const send = followAsync(createIdempotentFetch({ fetch }))
      const response = await send(shop, post)
      expect(await response.text()).toBe('again')
      expect(asked(sent)).toEqual([
        `POST ${shop}`,
        'GET https://shop.example/operations/7',
        `POST ${shop}`,
      ])
      const keys = sent.map(({ headers }) => headers.get('idempotency-key'))
      expect(keys[0]).toMatch(/^".{36}"$/)
      expect(keys).toEqual([keys[0], null, keys[0]])
      expect(sent[2]?.body).toEqual(sent[0]?.body)
    },
  )

  it('sends a Request object again, and goes on following', async () => {
    const { fetch, sent } = scriptedFetch(
      accepted(),
      standing('released'),
      accepted(),
      standing('running'),
      answer(201),
    )
    const send = followAsync(createIdempotentFetch({ fetch }))
    expect((await send(new Request(shop, post))).status).toBe(201)
    expect(sent.map(({ method }) => method)).toEqual(['POST', 'GET', 'POST', 'GET', 'GET'])
    expect(Buffer.from(sent[2]?.body ?? []).toString()).toBe('x')
  })

  it.each([
    ['without a key it would be another operation', post, 'released', 'request'],
    [
      'a stream is gone',
      { ...post, headers: { 'Idempotency-Key': 'k' }, body: new ReadableStream() },
      'released',
      'request',
    ],
    ['a workflow goes on by itself', post, 'interrupted', 'workflow'],
  ])('does not send it again: %s', async (_, init, status, kind) => {
    const { fetch, sent } = scriptedFetch(accepted(), standing(status, kind), answer(200))
    expect((await followAsync(fetch)(shop, init)).status).toBe(200)
    expect(sent.map(({ method }) => method)).toEqual(['POST', 'GET', 'GET'])
  })

  it('gives up after its timeout: the caller gets the 202, and the key to go on with', async () => {
    for (const last of [standing('running'), silence] satisfies Step[]) {
      const { fetch } = scriptedFetch(accepted(), last)
      const send = followAsync(createIdempotentFetch({ fetch }), { timeout: 100 })
      const response = (await send(shop, { ...post, key: 'k' })) as Response & { key?: string }
      expect([response.status, response.key]).toEqual([202, 'k'])
    }
  })

  it('waits as long as Retry-After says', async () => {
    const { fetch, sent } = scriptedFetch(
      accepted('/operations/7', { 'Retry-After': '1' }),
      answer(200),
    )
    const started = performance.now()
    await followAsync(fetch)(shop, post)
    expect(performance.now() - started).toBeGreaterThan(900)
    expect(sent.length).toBe(2)
  })

  it('is aborted by the signal of the call, while it asks and while it waits', async () => {
    for (const [last, retryAfter] of [
      [silence, '0'],
      [answer(200), '60'],
    ] satisfies [Step, string][]) {
      const { fetch } = scriptedFetch(accepted('/7', { 'Retry-After': retryAfter }), last)
      const controller = new AbortController()
      const call = followAsync(fetch)(shop, { ...post, signal: controller.signal })
      setTimeout(() => controller.abort(new Error('enough')), 50)
      await expect(call).rejects.toThrow('enough')
    }
  })

  it('what the fetch throws while it asks is thrown', async () => {
    const { fetch } = scriptedFetch(accepted(), new TypeError('fetch failed'))
    await expect(followAsync(fetch)(shop, post)).rejects.toThrow('fetch failed')
  })

  it('leaves nothing of its polls at the signal of the caller', async () => {
    const { fetch } = scriptedFetch(accepted(), standing('running'), standing('running'), silence)
    const { signal } = new AbortController()
    const response = await followAsync(fetch, { timeout: 1500 })(shop, { ...post, signal })
    expect(response.status).toBe(202)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  it.each([{ timeout: -1 }, { wait: '5s' }, { origins: 'https://x' }, { retries: 1 }])(
    'refuses %j',
    (options) => {
      expect(() => followAsync(fetch, options as object)).toThrow(/Option ".*" is .*; allowed: /)
    },
  )

  it('with Pawl on the other side: 202, a failure, and the result of the retry', async () => {
    const gate = new Gate()
    const app = await startApp(
      database.url,
      {
        scope: (req) => req.get('authorization') as string,
        resumable: true,
        respondAsyncAfter: 1,
        statusUrl: '/operations/:id',
      },
      (app, express) => {
        app.get('/operations/:id', (...args) => status(...args))
        app.post('/orders', express.text(), async (req, res) => {
          await gate.pass()
          const { attempt, key } = req.execution as NonNullable<typeof req.execution>
          res.status(attempt === 1 ? 500 : 201).json({ attempt, key, body: req.body })
        })
      },
    )
    const status = app.pawl.statusHandler({
      authorize: (req, { scope }) => req.headers.authorization === scope,
    })
    const statuses: number[] = []
    const send = followAsync(
      createIdempotentFetch({
        fetch: async (...args) => {
          const response = await fetch(...args)
          statuses.push(response.status)
          return response
        },
      }),
    )
    const result = send(`${app.url}/orders`, {
      method: 'POST',
      body: 'a book',
      key: 'order-7',
      headers: { Authorization: 'ann', 'Content-Type': 'text/plain' },
    })
    await waitFor('the 202', () => statuses.length > 0)
    await gate.open()
    // It is told that the attempt has failed, sends the request again, and goes on asking.
    await gate.open()
    const response = await result
    expect(statuses.at(0)).toBe(202)
    expect(statuses).not.toContain(500)
    expect(response.status).toBe(201)
    expect(await response.json()).toEqual({ attempt: 2, key: 'order-7', body: 'a book' })
    expect(response.key).toBe('order-7')
  })
})
