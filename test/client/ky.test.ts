import ky, { HTTPError } from 'ky'
import { describe, expect, it, vi } from 'vitest'
import {
  createIdempotentFetch,
  type IdempotentResponse,
  RetryBudget,
} from '../../lib/client/index.ts'
import { idempotencyHooks, type KyIdempotencyOptions } from '../../lib/client/ky.ts'
import { withDatabase } from '../helpers/database.ts'
import type { Fault } from '../helpers/faulty-proxy.ts'
import { expectOneOrder, startOrders } from './orders-app.ts'

const database = withDatabase()
const quick = { baseDelay: 5, maxDelay: 50, attemptTimeout: 20_000 }
const client = (options: KyIdempotencyOptions = {}) =>
  ky.extend(idempotencyHooks({ ...quick, ...options }))

const faults: Fault[] = [
  'reset before',
  'reset after',
  'reset in the middle',
  '503 before',
  '502 after',
  'slow',
]

describe('ky with idempotencyHooks', () => {
  it.each(faults)('orders once through: %s', async (fault) => {
    const orders = await startOrders(database, [fault])
    const api = client(fault === 'slow' ? { attemptTimeout: 1500 } : {})
    const response = (await api.post(orders.url, {
      json: { item: 7 },
    })) as unknown as IdempotentResponse
    expect(await response.json()).toEqual({ effect: 1, body: '{"item":7}' })
    expectOneOrder(response, orders, fault)
  })

  it('sends a form with the same boundary each time', async () => {
    const { url, effects, requests } = await startOrders(database, ['503 before', 'reset before'])
    const body = new FormData()
    body.set('file', new Blob(['%PDF']), 'order.pdf')
    const data = await client().patch(url, { body }).json<{ body: string }>()
    expect(requests).toHaveLength(3)
    expect(new Set(requests.map(({ type }) => type)).size).toBe(1)
    expect(effects).toEqual([data.body])
  })

  it('takes the key of the caller, or of the option', async () => {
    const { url, requests } = await startOrders(database)
    const api = client({ key: () => 'from the option' })
    await api.post(url, { headers: { 'Idempotency-Key': 'mine' } })
    await api.post(url)
    await api.put(url)
    expect(requests.map(({ key }) => key)).toEqual(['"mine"', '"from the option"', undefined])
  })

  it('keeps the hooks of others, and lets them see each retry', async () => {
    const { url, requests } = await startOrders(database, ['503 before', '503 before'])
    const beforeRequest = vi.fn()
    const beforeRetry = vi.fn()
    const onRetry = vi.fn()
    const api = client({ onRetry }).extend({
      hooks: { beforeRequest: [beforeRequest], beforeRetry: [beforeRetry] },
    })
    await api.post(url)
    expect(beforeRequest).toHaveBeenCalledTimes(3)
    expect(beforeRetry).toHaveBeenCalledTimes(2)
    expect(onRetry.mock.calls.map(([{ attempts, status }]) => [attempts, status])).toEqual([
      [1, 503],
      [2, 503],
    ])
    expect(requests).toHaveLength(3)
  })

  it.each([
    ['in-progress', 2],
    ['outcome-unknown', 1],
  ])('409 %s is sent %d times', async (code, times) => {
    const { url, requests } = await startOrders(database, [], () =>
      requests.length < 2 ? { status: 409, body: { type: `urn:pawl:problem:${code}` } } : undefined,
    )
    const response = (await client()
      .put(url)
      .catch((error: HTTPError) => error.response)) as unknown as IdempotentResponse
    expect(response.attempts).toBe(times)
    expect(requests).toHaveLength(times)
  })

  it.each([
    [400, {}, 1],
    [500, {}, 2],
    [500, { 'Idempotent-Replayed': 'true' }, 1],
    [501, {}, 1],
  ])('%d with %j is sent %d times', async (status, headers, times) => {
    const fetch = vi.fn(async () => new Response('', { status, headers }))
    const api = client({ maxAttempts: 2 }).extend({ fetch })
    await expect(api.post('https://shop.example/')).rejects.toThrow(HTTPError)
    expect(fetch).toHaveBeenCalledTimes(times)
  })

  it('rejects with the HTTPError of the last answer when it gives up', async () => {
    const { url } = await startOrders(database, Array(9).fill('503 before'))
    const error: HTTPError = await client({ maxAttempts: 3 })
      .post(url)
      .catch((e) => e)
    expect(error).toBeInstanceOf(HTTPError)
    expect(error.response).toMatchObject({ status: 503, attempts: 3 })
    expect(await error.response.text()).toBe('no server')
  })

  it('keeps to the budget', async () => {
    const { url, requests } = await startOrders(database, Array(50).fill('503 before'))
    const api = client({ budget: new RetryBudget({ capacity: 3 }) })
    for (let n = 0; n < 5; n++) await api.post(url).catch(() => {})
    expect(requests).toHaveLength(8)
  })

  it('streams an event stream', async () => {
    const api = client().extend({
      fetch: async () =>
        new Response(new ReadableStream(), { headers: { 'Content-Type': 'text/event-stream' } }),
    })
    expect((await api.post('https://shop.example/')).bodyUsed).toBe(false)
  })
})

describe('ky on createIdempotentFetch', () => {
  it.each(faults)('orders once through: %s', async (fault) => {
    const { url, effects } = await startOrders(database, [fault])
    const fetch = createIdempotentFetch({
      ...quick,
      ...(fault === 'slow' && { attemptTimeout: 1500 }),
    })
    const api = ky.create({ fetch, retry: 0, timeout: false })
    const response = (await api.post(url, { json: { item: 7 } })) as unknown as IdempotentResponse
    expect(await response.json()).toEqual({ effect: 1, body: '{"item":7}' })
    expect(response.attempts).toBeGreaterThan(1)
    expect(effects).toHaveLength(1)
  })
})
