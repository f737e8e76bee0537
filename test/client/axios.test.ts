import { Readable } from 'node:stream'
import axios, { AxiosError, type AxiosInstance } from 'axios'
import { describe, expect, it, vi } from 'vitest'
import { type AxiosIdempotencyOptions, idempotencyInterceptor } from '../../lib/client/axios.ts'
import { RetryBudget } from '../../lib/client/index.ts'
import { withDatabase } from '../helpers/database.ts'
import type { Fault } from '../helpers/faulty-proxy.ts'
import { expectOneOrder, startOrders } from './orders-app.ts'

const database = withDatabase()
const quick = { baseDelay: 5, maxDelay: 50, attemptTimeout: 20_000 }

function client(options: AxiosIdempotencyOptions = {}, config = {}): AxiosInstance {
  const api = axios.create(config)
  api.interceptors.request.use(idempotencyInterceptor(axios, { ...quick, ...options }))
  return api
}

/** Node's own transport, and the one that browsers and workers share. */
describe.each(['http', 'fetch'] as const)('axios over its adapter %s', (adapter) => {
  const faults: Fault[] = [
    'reset before',
    'reset after',
    'reset in the middle',
    '503 before',
    '502 after',
    'slow',
  ]

  it.each(faults)('orders once through: %s', async (fault) => {
    const orders = await startOrders(database, [fault])
    const api = client(fault === 'slow' ? { attemptTimeout: 1500 } : {}, { adapter })
    const response = await api.post(orders.url, { item: 7 })
    expect(response.data).toEqual({ effect: 1, body: '{"item":7}' })
    expectOneOrder(response, orders, fault)
  })

  it('runs interceptors and transforms once for a call', async () => {
    const { url } = await startOrders(database, ['503 before', 'reset after'])
    const transform = vi.fn((data) => JSON.stringify(data))
    const api = client({}, { adapter, transformRequest: transform })
    const before = vi.fn((config) => config)
    const after = vi.fn((response) => response)
    api.interceptors.request.use(before)
    api.interceptors.response.use(after)
    expect((await api.post(url, { item: 7 })).attempts).toBe(3)
    for (const seen of [transform, before, after]) expect(seen).toHaveBeenCalledTimes(1)
  })

  it('sends a form with the same boundary each time', async () => {
    const { url, effects, requests } = await startOrders(database, ['503 before', 'reset before'])
    const form = new FormData()
    form.set('file', new Blob(['%PDF'], { type: 'application/pdf' }), 'order.pdf')
    const { data } = await client({}, { adapter }).post(url, form)
    expect(requests).toHaveLength(3)
    const types = new Set(requests.map(({ type }) => type))
    expect(types.size).toBe(1)
    const boundary = /^multipart\/form-data; boundary=(.+)$/.exec([...types][0] ?? '')?.[1]
    expect(effects).toEqual([data.body])
    expect(data.body).toContain(`--${boundary}--`)
    expect(data.body).toContain('filename="order.pdf"')
  })

  it('sends bytes as they are', async () => {
    const { url, effects } = await startOrders(database, ['reset before'])
    await client({}, { adapter }).post(url, Buffer.from('bytes'), {
      headers: { 'Content-Type': 'text/plain' },
    })
    expect(effects).toEqual(['bytes'])
  })

  it('rejects with the AxiosError of an answer that is final', async () => {
    const { url, requests } = await startOrders(database, [], () => ({
      status: 400,
      body: { no: 'stock' },
    }))
    const error = await client({}, { adapter })
      .post(url, {}, { headers: { 'Idempotency-Key': 'k-1' } })
      .catch((e) => e)
    expect(error).toBeInstanceOf(AxiosError)
    expect(error).toMatchObject({ attempts: 1, key: 'k-1', code: 'ERR_BAD_REQUEST' })
    expect(error.response).toMatchObject({ status: 400, data: { no: 'stock' }, attempts: 1 })
    expect(requests[0]?.key).toBe('"k-1"')
  })

  const responseTypes = ['json', 'text', 'arraybuffer'] as const
  // Of Node's transports, only fetch knows Blobs.
  it.each(adapter === 'http' ? responseTypes : [...responseTypes, 'blob' as const])(
    'knows a problem in a body of responseType %s',
    async (responseType) => {
      const problem = (code: string) => ({ type: `urn:pawl:problem:${code}` })
      const answers = [problem('in-progress'), problem('outcome-unknown')]
      const { url, requests } = await startOrders(database, [], () => ({
        status: 409,
        body: answers[Math.min(requests.length, 2) - 1],
      }))
      // PUT has no key, so that Pawl lets it pass.
      const api = client({}, { adapter, responseType })
      const error = await api.put(url, '{}').catch((e) => e)
      expect(error.attempts).toBe(2)
      expect(error.response.status).toBe(409)
    },
  )

  it('rejects with the last answer when the policy gives up', async () => {
    const { url } = await startOrders(database, ['503 before', '502 after', '503 before'])
    const error = await client({ maxAttempts: 3 }, { adapter })
      .post(url, {})
      .catch((e) => e)
    expect(error.response).toMatchObject({ status: 503, attempts: 3 })
  })

  it('rejects with the last network error when there was no answer', async () => {
    const { url } = await startOrders(database, ['reset before', 'reset before'])
    const error = await client({ maxAttempts: 2 }, { adapter })
      .post(url, {})
      .catch((e) => e)
    expect(error).toBeInstanceOf(AxiosError)
    expect(error.response).toBeUndefined()
    expect(error).toMatchObject({ attempts: 2, key: expect.stringMatching(/^[0-9a-f-]{36}$/) })
  })

  it('judges answers that validateStatus lets through', async () => {
    const { url } = await startOrders(database, ['503 before'])
    const api = client({}, { adapter, validateStatus: () => true })
    expect(await api.post(url, {})).toMatchObject({ status: 201, attempts: 2 })
  })

  it('ends with an abort', async () => {
    const { url, requests } = await startOrders(database, Array(50).fill('503 before'))
    const controller = new AbortController()
    const onRetry = () => controller.abort()
    const api = client({ onRetry, baseDelay: 60_000 }, { adapter })
    const error = await api.post(url, {}, { signal: controller.signal }).catch((e) => e)
    expect(axios.isCancel(error)).toBe(true)
    expect(requests).toHaveLength(1)
  })

  it('refuses a stream at once', async () => {
    const { url, requests } = await startOrders(database)
    const error = await client({}, { adapter })
      .post(url, Readable.from(['x']))
      .catch((e) => e)
    expect(error).toMatchObject({ name: 'IdempotentFetchError', code: 'body-not-repeatable' })
    expect(requests).toHaveLength(0)
  })

  it('retries GET without a key', async () => {
    const { url, requests } = await startOrders(database, ['503 before'])
    expect((await client({}, { adapter }).get(url)).attempts).toBe(2)
    expect(requests.map(({ key }) => key)).toEqual([undefined, undefined])
  })

  it('keeps to the budget', async () => {
    const { url, requests } = await startOrders(database, Array(50).fill('503 before'))
    const api = client({ budget: new RetryBudget({ capacity: 3 }) }, { adapter })
    for (let n = 0; n < 5; n++) await api.post(url, {}).catch(() => {})
    expect(requests).toHaveLength(8)
  })

  it('does not retry what the configuration makes impossible', async () => {
    const onRetry = vi.fn()
    const error = await client({ onRetry }, { adapter })
      .post('gopher://x/', {})
      .catch((e) => e)
    expect(error).toBeInstanceOf(AxiosError)
    if (adapter === 'http') expect(onRetry).not.toHaveBeenCalled()
  })
})
