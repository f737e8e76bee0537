import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  createIdempotentFetch,
  type IdempotentFetchError,
  type IdempotentFetchOptions,
} from '../../lib/client/index.ts'
import {
  customStore,
  localStorageStore,
  type PendingRequest,
  type PersistOptions,
  type ResumableFetch,
  type Resumed,
} from '../../lib/client/persist.ts'
import {
  answer,
  atOnce,
  networkError,
  type Step,
  scriptedFetch,
  silence,
} from './scripted-fetch.ts'

const url = 'https://shop.example/orders'

/** What outlives the page: items of text, as in localStorage. */
class Items {
  readonly items = new Map<string, string>()
  get length() {
    return this.items.size
  }
  key(index: number) {
    return [...this.items.keys()][index] ?? null
  }
  getItem(key: string) {
    return this.items.get(key) ?? null
  }
  setItem(key: string, value: string) {
    this.items.set(key, value)
  }
  removeItem(key: string) {
    this.items.delete(key)
  }
}

type Settings = Omit<IdempotentFetchOptions, 'persist'> & { persist?: PersistOptions }

/** A page that opens on what earlier ones have left. */
function open(storage: Items, steps: Step[], { persist, ...options }: Settings = {}) {
  const script = scriptedFetch(...steps)
  const fetch = createIdempotentFetch({
    fetch: script.fetch,
    ...atOnce,
    ...options,
    persist: localStorageStore('shop', { storage, ...persist }),
  })
  return { fetch, sent: script.sent }
}

/** A page that gets no answer, and ends. */
async function leave(storage: Items, init: object = {}, settings: Settings = {}) {
  const { fetch, sent } = open(storage, [networkError()], { maxAttempts: 1, ...settings })
  const error: IdempotentFetchError = await fetch(url, { method: 'POST', ...init }).then(
    () => expect.unreachable('it was answered'),
    (thrown) => thrown,
  )
  return { error, sent: sent[0] as (typeof sent)[number] }
}

async function resumeAll(fetch: ResumableFetch): Promise<Resumed[]> {
  const resumed: Resumed[] = []
  for await (const one of fetch.resume()) resumed.push(one)
  return resumed
}

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

describe('a request without an answer', () => {
  it('is repeated by the next page: key, method, URL, type and bytes', async () => {
    const storage = new Items()
    const body = new FormData()
    body.set('file', new Blob([new Uint8Array([0, 255, 128])]), 'x.bin')
    const before = await leave(storage, { body, method: 'PATCH', credentials: 'include' })

    const { fetch, sent } = open(storage, [answer(201, { 'Idempotent-Replayed': 'true' }, 'done')])
    const resumed = await resumeAll(fetch)

    expect(resumed).toHaveLength(1)
    expect(resumed[0]).toMatchObject({
      key: before.error.key,
      request: { url, method: 'PATCH', credentials: 'include' },
      response: { status: 201, replayed: true, attempts: 1, key: before.error.key },
    })
    expect(await resumed[0]?.response?.text()).toBe('done')
    expect(sent).toHaveLength(1)
    expect(sent[0]).toMatchObject({ input: url, method: 'PATCH', body: before.sent.body })
    for (const name of ['Idempotency-Key', 'Content-Type']) {
      expect(sent[0]?.headers.get(name)).toBe(before.sent.headers.get(name))
    }
    expect(storage.length).toBe(0)
  })

  it('without a body stays without one', async () => {
    const storage = new Items()
    await leave(storage)
    const { fetch, sent } = open(storage, [answer(201)])
    await resumeAll(fetch)
    expect(sent[0]?.body).toBeUndefined()
  })

  it('is stored before it is sent, and forgotten with its final answer', async () => {
    const storage = new Items()
    const lengths: number[] = []
    const count = (response: Response) => () => {
      lengths.push(storage.length)
      return response
    }
    const { fetch } = open(storage, [count(answer(503)), count(answer(201))])
    await fetch(url, { method: 'POST' })
    expect(lengths).toEqual([1, 1])
    expect(storage.length).toBe(0)
  })

  it.each([
    [201, 0],
    [400, 0],
    [403, 0],
    [500, 1],
    [503, 1],
    [401, 1],
  ])('an answer of %d leaves %d pending', async (status, left) => {
    const storage = new Items()
    const { fetch } = open(storage, [answer(status)], { maxAttempts: 2 })
    const response = await fetch(url, { method: 'POST' })
    expect(response.status).toBe(status)
    expect((await fetch.pending()).map(({ key }) => key)).toEqual(left ? [response.key] : [])
  })

  it('several are resumed in their order, one after the other', async () => {
    const storage = new Items()
    vi.useFakeTimers({ toFake: ['Date'], now: 1e12 })
    for (const key of ['c', 'a', 'b']) {
      await leave(storage, { key })
      vi.setSystemTime(Date.now() + 1)
    }
    const { fetch, sent } = open(
      storage,
      [answer(201), networkError(), networkError(), answer(400)],
      {
        maxAttempts: 2,
      },
    )
    const seen: string[] = []
    for await (const { key, response, error } of fetch.resume()) {
      seen.push(`${key} ${response?.status ?? (error as Error).name}, sent ${sent.length}`)
    }
    expect(seen).toEqual(['c 201, sent 1', 'a IdempotentFetchError, sent 3', 'b 400, sent 4'])
    expect((await fetch.pending()).map(({ key }) => key)).toEqual(['a'])
  })

  it('comes once more if the page ends while it handles the answer', async () => {
    const storage = new Items()
    await leave(storage, { key: 'k' })
    const first = open(storage, [answer(201)])
    for await (const { key } of first.fetch.resume()) {
      expect(key).toBe('k')
      break
    }
    const second = open(storage, [answer(201, { 'Idempotent-Replayed': 'true' })])
    expect((await resumeAll(second.fetch))[0]?.response?.replayed).toBe(true)
    expect(storage.length).toBe(0)
  })

  it('can be given up', async () => {
    const storage = new Items()
    await leave(storage, { key: 'k' })
    const { fetch, sent } = open(storage, [answer(201)])
    await fetch.forget('k')
    await fetch.forget('unknown')
    expect(await resumeAll(fetch)).toEqual([])
    expect(sent).toHaveLength(0)
  })

  it('is not repeated once the server may have forgotten its key', async () => {
    const storage = new Items()
    vi.useFakeTimers({ toFake: ['Date'] })
    await leave(storage, { key: 'k' })
    vi.setSystemTime(Date.now() + 23 * 3_600_000 + 1)
    const { fetch, sent } = open(storage, [answer(201)])
    const [resumed] = await resumeAll(fetch)
    expect(resumed).toMatchObject({ key: 'k', error: { code: 'expired', key: 'k' } })
    expect(resumed?.response).toBeUndefined()
    expect(sent).toHaveLength(0)
    expect(storage.length).toBe(0)
  })

  it('keeps its age when the caller repeats it with its key', async () => {
    const storage = new Items()
    vi.useFakeTimers({ toFake: ['Date'], now: 1e12 })
    await leave(storage, { key: 'k' })
    vi.setSystemTime(1e12 + 5000)
    await leave(storage, { key: 'k' })
    expect((await open(storage, []).fetch.pending()).map(({ createdAt }) => createdAt)).toEqual([
      1e12,
    ])
  })

  it('outlives the 422 of another request under its key', async () => {
    const storage = new Items()
    await leave(storage, { key: 'k', body: 'mine' })
    const { fetch } = open(storage, [answer(422), answer(201)])
    expect((await fetch(url, { method: 'POST', key: 'k', body: 'other' })).status).toBe(422)
    expect(await fetch.pending()).toHaveLength(1)
    expect((await fetch(url, { method: 'POST', key: 'k', body: 'mine' })).status).toBe(201)
    expect(await fetch.pending()).toHaveLength(0)
  })

  it('is skipped by resume() while the page still sends it', async () => {
    const storage = new Items()
    let respond = (_response: Response) => {}
    const { fetch, sent } = open(storage, [() => new Promise((resolve) => (respond = resolve))])
    const call = fetch(url, { method: 'POST' })
    await vi.waitFor(() => expect(sent).toHaveLength(1))
    expect(await resumeAll(fetch)).toEqual([])
    respond(answer(201))
    expect((await call).status).toBe(201)
    expect(sent).toHaveLength(1)
  })
})

describe('aborting', () => {
  it('forgets the request, so that it is not resent without the caller', async () => {
    const storage = new Items()
    const controller = new AbortController()
    const { fetch, sent } = open(storage, [silence])
    const call = fetch(url, { method: 'POST', signal: controller.signal })
    await vi.waitFor(() => expect(sent).toHaveLength(1))
    controller.abort()
    await expect(call).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    expect(storage.length).toBe(0)
  })

  it('by AbortSignal.timeout() only ends the wait', async () => {
    const storage = new Items()
    const { fetch } = open(storage, [silence])
    const call = fetch(url, { method: 'POST', signal: AbortSignal.timeout(50) })
    await expect(call).rejects.toThrow(expect.objectContaining({ name: 'TimeoutError' }))
    expect(storage.length).toBe(1)
  })

  it('resume() ends with its signal, and keeps what is pending', async () => {
    const storage = new Items()
    await leave(storage)
    const { fetch } = open(storage, [silence])
    const resumed = fetch.resume({ signal: AbortSignal.timeout(50) }).next()
    await expect(resumed).rejects.toThrow(expect.objectContaining({ name: 'TimeoutError' }))
    expect(storage.length).toBe(1)
  })
})

describe('what is stored', () => {
  const secrets = {
    Authorization: 'Bearer s3cret',
    'Proxy-Authorization': 'Basic s3cret',
    'X-Api-Key': 's3cret',
    'X-Csrf-Token': 's3cret',
    Cookie: 'session=s3cret',
  }

  it('has no header but those that say what the body is', async () => {
    const storage = new Items()
    const headers = { ...secrets, Accept: 'application/json', 'Content-Type': 'application/json' }
    await leave(storage, { headers, body: '{}' }, { headers: () => ({ 'X-Token': 's3cret' }) })
    expect([...storage.items.values()].join()).not.toContain('s3cret')
    const [pending] = await open(storage, []).fetch.pending()
    expect(pending?.headers).toEqual([
      ['accept', 'application/json'],
      ['content-type', 'application/json'],
    ])
  })

  it('has the headers that are named, but credentials never', async () => {
    const storage = new Items()
    const persist = { headers: ['X-Shop', 'Authorization', 'cookie'] }
    await leave(storage, { headers: { ...secrets, 'X-Shop': '7' } }, { persist })
    expect((await open(storage, []).fetch.pending())[0]?.headers).toEqual([['x-shop', '7']])
  })

  it('credentials come back from the headers option', async () => {
    const storage = new Items()
    await leave(storage, { headers: secrets })
    const headers = () => ({ Authorization: 'Bearer new' })
    const { fetch, sent } = open(storage, [answer(201)], { headers })
    await resumeAll(fetch)
    expect(sent[0]?.headers.get('Authorization')).toBe('Bearer new')
  })

  it('is nothing without a key, or with persist: false', async () => {
    const storage = new Items()
    const { fetch } = open(storage, [networkError()], { maxAttempts: 1 })
    await expect(fetch(url)).rejects.toThrow('No answer to GET')
    await expect(fetch(url, { method: 'POST', persist: false })).rejects.toThrow(
      'No answer to POST',
    )
    expect(storage.length).toBe(0)
  })

  it('is apart from the items of others', async () => {
    const storage = new Items()
    storage.setItem('theme', 'dark')
    storage.setItem('shop-of-another:k', 'x')
    await leave(storage, { key: 'k' })
    const { fetch } = open(storage, [answer(201)])
    expect(await resumeAll(fetch)).toHaveLength(1)
    expect([...storage.items.keys()]).toEqual(['theme', 'shop-of-another:k'])
  })

  it('has an absolute URL: another page may be the one that resumes', async () => {
    const storage = new Items()
    vi.stubGlobal('location', { href: 'https://shop.example/cart/7' })
    try {
      const { fetch } = open(storage, [networkError()], { maxAttempts: 1 })
      await expect(fetch('checkout?x=1', { method: 'POST' })).rejects.toThrow('No answer')
      expect((await fetch.pending())[0]?.url).toBe('https://shop.example/cart/checkout?x=1')
    } finally {
      vi.unstubAllGlobals()
    }
  })
})

describe('a store of your own', () => {
  function memory(overrides = {}) {
    const kept = new Map<string, PendingRequest>()
    return {
      kept,
      async add(request: PendingRequest) {
        if (kept.has(request.key)) return false
        kept.set(request.key, request)
        return true
      },
      async delete(key: string) {
        kept.delete(key)
      },
      list: async () => [...kept.values()],
      ...overrides,
    }
  }

  it('gets plain data, that a structured clone takes', async () => {
    const store = memory()
    const { fetch: scripted } = scriptedFetch(networkError())
    const persist = customStore(store)
    const fetch = createIdempotentFetch({ fetch: scripted, ...atOnce, maxAttempts: 1, persist })
    await expect(fetch(url, { method: 'POST', key: 'k', body: 'x' })).rejects.toThrow('No answer')
    const pending = store.kept.get('k')
    expect(structuredClone(pending)).toEqual(pending)
    expect(pending).toMatchObject({ key: 'k', url, method: 'POST' })
    expect(new TextDecoder().decode(pending?.body)).toBe('x')
  })

  it('that cannot store keeps the request from being sent', async () => {
    const cause = new Error('disk full')
    const store = memory({ add: () => Promise.reject(cause) })
    const { fetch: scripted, sent } = scriptedFetch(answer(201))
    const fetch = createIdempotentFetch({ fetch: scripted, persist: customStore(store) })
    await expect(fetch(url, { method: 'POST', key: 'k' })).rejects.toThrow(
      expect.objectContaining({ code: 'persist-failed', key: 'k', attempts: 0, cause }),
    )
    expect(sent).toHaveLength(0)
  })

  it('that cannot forget does not cost the caller the answer', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {})
    const store = memory({ delete: () => Promise.reject(new Error('disk gone')) })
    const { fetch: scripted } = scriptedFetch(answer(201))
    const fetch = createIdempotentFetch({ fetch: scripted, persist: customStore(store) })
    expect((await fetch(url, { method: 'POST' })).status).toBe(201)
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('pawl/client'), expect.any(Error))
  })
})
