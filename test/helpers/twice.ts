import { expect } from 'vitest'
import { freshKey, type RawResponse, type RequestOptions, request } from './request.ts'

/** Sends the same request twice; the first must have run, the second must be its replay. */
export async function twice(url: string, options: RequestOptions = {}): Promise<RawResponse> {
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

/** The headers that belong to the answer, and not to the message that carried it. */
export function endToEnd({ headers }: RawResponse) {
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
