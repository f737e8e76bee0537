import axios from 'axios'
import ky from 'ky'
import { createIdempotentFetch, type IdempotentResponse } from 'pawl/client'
import { idempotencyInterceptor } from 'pawl/client/axios'
import { followAsync } from 'pawl/client/follow'
import { idempotencyHooks } from 'pawl/client/ky'
import { indexedDbStore } from 'pawl/client/persist'

const plain: typeof fetch = createIdempotentFetch({ maxAttempts: 3 })
const kept = createIdempotentFetch({ persist: indexedDbStore('shop') })
const followed: typeof fetch = followAsync(fetch, { timeout: 60_000 })
const response: IdempotentResponse = await followAsync(kept)('/orders', {
  method: 'POST',
  key: 'k',
})
for await (const { key, request, response, error } of kept.resume()) {
  console.log(key.length, request.url, response?.attempts, error)
}
axios.create().interceptors.request.use(idempotencyInterceptor(axios, { budget: false }))
const { attempts, replayed } = await axios.get<string>('/orders')
const api = ky.extend(idempotencyHooks({ key: ({ url }) => url }))
await ky.create({ fetch: followed }).post('/orders').json()
// @ts-expect-error only a client with persist can resume
createIdempotentFetch().resume()
// @ts-expect-error there is no such option
followAsync(plain, { retries: 1 })
export const seen: [number | undefined, boolean | undefined, boolean, typeof api] = [
  attempts,
  replayed,
  response.replayed,
  api,
]
