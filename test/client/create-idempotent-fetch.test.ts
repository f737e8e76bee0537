import { describe, expect, it, vi } from 'vitest'
import { createIdempotentFetch, type IdempotentFetchError } from '../../lib/client/index.ts'
import { answer, atOnce, networkError, scriptedFetch } from './scripted-fetch.ts'

const url = 'https://shop.example/orders'
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

function start(steps: Parameters<typeof scriptedFetch>, options = {}) {
  const script = scriptedFetch(...steps)
  const fetch = createIdempotentFetch({ fetch: script.fetch, ...atOnce, ...options })
  const header = (at = 0) => script.sent[at]?.headers.get('Idempotency-Key')
  const text = (at = 0) => new TextDecoder().decode(script.sent[at]?.body)
  return { ...script, call: fetch, header, text }
}

const refusal = (promise: Promise<unknown>): Promise<IdempotentFetchError> =>
  promise.then(
    () => expect.unreachable('it was not refused'),
    (error) => error,
  )

describe('the key', () => {
  it.each(['POST', 'PATCH', 'patch'])('is a UUID in double quotes for %s', async (method) => {
    const { call, header, sent } = start([answer(201)])
    const response = await call(url, { method })
    expect(response.key).toMatch(UUID)
    expect(header()).toBe(`"${response.key}"`)
    expect(sent[0]?.method).toBe(method.toUpperCase())
  })

  it.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PROPFIND'])(
    'is not sent with %s',
    async (method) => {
      const { call, header } = start([answer(200)])
      expect((await call(url, { method })).key).toBeUndefined()
      expect(header()).toBeNull()
    },
  )

  it('is new for each call and the same for each attempt', async () => {
    const { call, header } = start([answer(503), networkError(), answer(201)])
    const first = await call(url, { method: 'POST' })
    const second = await call(url, { method: 'POST' })
    expect([header(0), header(1), header(2)]).toEqual(Array(3).fill(`"${first.key}"`))
    expect(second.key).not.toBe(first.key)
  })

  it('is the one of the call', async () => {
    const { call, header } = start([answer(201)])
    const response = await call(url, { method: 'POST', key: 'order 7 "gift" \\' })
    expect(header()).toBe('"order 7 \\"gift\\" \\\\"')
    expect(response.key).toBe('order 7 "gift" \\')
  })

  it.each([
    ['abc', 'abc'],
    ['"abc"', 'abc'],
    ['"a\\"b\\\\c"', 'a"b\\c'],
    ['"abc";v=1', 'abc'],
    ['"open', '"open'],
  ])('is the one in the header %j, on any method', async (value, key) => {
    const { call, header } = start([answer(201)])
    for (const method of ['POST', 'DELETE']) {
      const response = await call(url, { method, headers: { 'idempotency-key': value } })
      expect(response.key).toBe(key)
    }
    expect(header()).toBe(`"${key.replaceAll(/["\\]/g, '\\$&')}"`)
  })

  it('is made by the option, which may leave it to the client', async () => {
    const key = vi.fn().mockReturnValueOnce('order-7').mockReturnValue(undefined)
    const { call, header } = start([answer(201)], { key })
    expect((await call(url, { method: 'POST' })).key).toBe('order-7')
    expect((await call(url, { method: 'POST' })).key).toMatch(UUID)
    expect(key).toHaveBeenCalledWith({ url, method: 'POST' })
    expect(header()).toBe('"order-7"')
  })

  it('goes where and how other servers want it', async () => {
    const { call, sent } = start([answer(201)], {
      header: 'PayPal-Request-Id',
      quoted: false,
      methods: ['delete'],
    })
    await call(url, { method: 'DELETE', key: 'refund-7' })
    await call(url, { method: 'POST' })
    expect(sent[0]?.headers.get('PayPal-Request-Id')).toBe('refund-7')
    expect(sent[1]?.headers.has('PayPal-Request-Id')).toBe(false)
  })

  it.each(['', 'é', 'a\nb', 'x'.repeat(256), 7 as unknown as string])(
    '%j is refused, and nothing is sent',
    async (key) => {
      const { call, sent } = start([answer(201)])
      const error = await refusal(call(url, { method: 'POST', key }))
      expect(error).toMatchObject({
        name: 'IdempotentFetchError',
        code: 'key-malformed',
        attempts: 0,
      })
      expect(sent).toHaveLength(0)
    },
  )

  it('is random on pages without TLS too, that have no randomUUID', async () => {
    vi.stubGlobal('crypto', { getRandomValues: crypto.getRandomValues.bind(crypto) })
    try {
      const { call } = start([answer(201)])
      const keys = new Set<string>()
      for (let n = 0; n < 50; n++) keys.add((await call(url, { method: 'POST' })).key as string)
      expect(keys.size).toBe(50)
      for (const key of keys) expect(key).toMatch(UUID)
    } finally {
      vi.unstubAllGlobals()
    }
  })
})

describe('the body', () => {
  const form = () => {
    const data = new FormData()
    data.set('name', 'Ada')
    data.set('file', new Blob(['%PDF'], { type: 'application/pdf' }), 'order.pdf')
    return data
  }
  const bodies: [string, NonNullable<RequestInit['body']>, RegExp | null, RegExp][] = [
    ['a string', 'Grüße', /^text\/plain;charset=UTF-8$/, /^Grüße$/],
    ['bytes', new TextEncoder().encode('bytes'), null, /^bytes$/],
    ['an ArrayBuffer', new TextEncoder().encode('buffer').buffer, null, /^buffer$/],
    ['a Blob', new Blob(['blob'], { type: 'image/png' }), /^image\/png$/, /^blob$/],
    [
      'parameters',
      new URLSearchParams({ a: '1 2' }),
      /^application\/x-www-form-urlencoded/,
      /^a=1\+2$/,
    ],
    ['a form', form(), /^multipart\/form-data; boundary=\S+$/, /name="file"; filename="order.pdf"/],
  ]

  it.each(bodies)('%s is sent as the same bytes each time', async (_, body, type, content) => {
    const { call, sent, text } = start([answer(503), answer(503), answer(201)])
    await call(url, { method: 'POST', body })
    expect(text(0)).toMatch(content)
    expect([text(1), text(2)]).toEqual([text(0), text(0)])
    const types = sent.map(({ headers }) => headers.get('Content-Type'))
    expect(new Set(types).size).toBe(1)
    if (type) expect(types[0]).toMatch(type)
    else expect(types[0]).toBeNull()
  })

  it('keeps the boundary of a form in type and body', async () => {
    const { call, sent, text } = start([networkError(), answer(201)])
    await call(url, { method: 'POST', body: form() })
    const boundary = /boundary=(\S+)/.exec(sent[1]?.headers.get('Content-Type') ?? '')?.[1]
    expect(text(1)).toContain(`--${boundary}--`)
  })

  it('keeps the content type that the caller has set', async () => {
    const { call, sent } = start([answer(201)])
    const headers = { 'content-type': 'application/json' }
    await call(url, { method: 'POST', body: '{}', headers })
    expect(sent[0]?.headers.get('Content-Type')).toBe('application/json')
  })

  it('of a Request is repeated, and so are its method, headers and signal', async () => {
    const controller = new AbortController()
    const request = new Request(url, {
      method: 'PATCH',
      body: form(),
      headers: { 'X-Shop': '7' },
      signal: controller.signal,
    })
    const { call, sent, text } = start([
      answer(503),
      (one) => {
        controller.abort(new Error('enough'))
        expect(one.signal.aborted).toBe(true)
        throw one.signal.reason
      },
    ])
    await expect(call(request)).rejects.toThrow('enough')
    expect(sent.map(({ method }) => method)).toEqual(['PATCH', 'PATCH'])
    expect(text(1)).toBe(text(0))
    expect(text(0)).toContain('order.pdf')
    expect(sent[1]?.headers.get('X-Shop')).toBe('7')
    expect(sent[1]?.headers.get('Content-Type')).toMatch(/^multipart\/form-data/)
  })

  it('init wins over a Request, as in fetch', async () => {
    const request = new Request(url, { method: 'POST', body: 'old', headers: { a: '1' } })
    const { call, sent, text } = start([answer(201)])
    await call(request, { body: 'new', headers: { b: '2' }, key: 'k' })
    expect(text()).toBe('new')
    expect(Object.fromEntries(sent[0]?.headers ?? [])).toEqual({
      b: '2',
      'content-type': 'text/plain;charset=UTF-8',
      'idempotency-key': '"k"',
    })
  })

  it.each([
    ['ReadableStream', () => new Blob(['x']).stream()],
    [
      'async iterable',
      async function* () {
        yield new Uint8Array(1)
      },
    ],
  ])('that is a %s is refused at once', async (_, stream) => {
    const { call, sent } = start([answer(201)])
    const body = stream() as unknown as ReadableStream
    const error = await refusal(call(url, { method: 'POST', body, duplex: 'half' }))
    expect(error.code).toBe('body-not-repeatable')
    expect(error.message).toMatch(/stream can be sent only once; nothing was sent.*arrayBuffer\(\)/)
    expect(sent).toHaveLength(0)
  })
})

describe('the response', () => {
  it('is the one of fetch, and says how it came about', async () => {
    const { call } = start([
      networkError(),
      answer(201, { 'Idempotent-Replayed': 'true', 'X-A': '1' }, '{"id":7}'),
    ])
    const response = await call(url, { method: 'POST', key: 'k' })
    expect(response).toBeInstanceOf(Response)
    expect(response).toMatchObject({
      status: 201,
      replayed: true,
      attempts: 2,
      key: 'k',
      bodyUsed: false,
    })
    expect(response.headers.get('X-A')).toBe('1')
    expect(await response.json()).toEqual({ id: 7 })
  })

  it('is not replayed when it is the first', async () => {
    const { call } = start([answer(204)])
    const response = await call(url, { method: 'POST' })
    expect(response).toMatchObject({ status: 204, replayed: false, attempts: 1 })
    expect(await response.text()).toBe('')
  })

  const broken = () => {
    let parts = 0
    return (
      answer(200, {}, '').ok &&
      new Response(
        new ReadableStream({
          pull(controller) {
            if (parts++ === 0) controller.enqueue(new TextEncoder().encode('half'))
            else controller.error(new TypeError('terminated'))
          },
        }),
      )
    )
  }

  it('that breaks off in its middle is no answer', async () => {
    const { call, sent } = start([() => broken() as Response, answer(201, {}, 'whole')])
    const response = await call(url, { method: 'POST' })
    expect(response.attempts).toBe(2)
    expect(await response.text()).toBe('whole')
    expect(sent).toHaveLength(2)
  })

  it.each([
    ['without a key', { method: 'GET' }, {}, {}],
    ['of a call with buffer: false', { method: 'POST', buffer: false }, {}, {}],
    ['of a client with buffer: false', { method: 'POST' }, { buffer: false }, {}],
    ['that is an event stream', { method: 'POST' }, {}, { 'Content-Type': 'text/event-stream' }],
  ])('%s is handed on as it arrives', async (_, init, options, headers) => {
    let end = () => {}
    const flowing = () =>
      new Response(
        new ReadableStream({
          start(controller) {
            controller.enqueue(new TextEncoder().encode('one '))
            end = () => {
              controller.enqueue(new TextEncoder().encode('two'))
              controller.close()
            }
          },
        }),
        { headers },
      )
    const { call } = start([flowing], options)
    const response = await call(url, init)
    end()
    expect(await response.text()).toBe('one two')
  })

  it('that is streamed can still be aborted', async () => {
    const controller = new AbortController()
    const { call, sent } = start([answer(200, {}, 'flows')])
    await call(url, { signal: controller.signal })
    controller.abort()
    expect(sent[0]?.signal.aborted).toBe(true)
  })
})

describe('what surrounds a call', () => {
  it('the headers option adds to each attempt, fresh each time', async () => {
    let token = 0
    const headers = vi.fn(async () => ({ Authorization: `Bearer ${++token}` }))
    const { call, sent } = start([answer(503), answer(201)], { headers })
    await call(url, { method: 'POST', key: 'k', headers: { Authorization: 'old', a: '1' } })
    expect(sent.map((one) => one.headers.get('Authorization'))).toEqual(['Bearer 1', 'Bearer 2'])
    expect(sent[1]?.headers.get('a')).toBe('1')
    expect(headers).toHaveBeenCalledWith({ url, method: 'POST', key: 'k' })
  })

  it('what the headers option throws ends the call', async () => {
    const headers = () => Promise.reject(new Error('logged out'))
    const { call, sent } = start([answer(201)], { headers })
    await expect(call(url, { method: 'POST' })).rejects.toThrow('logged out')
    expect(sent).toHaveLength(0)
  })

  it('a mistake in the request is thrown at once', async () => {
    const fetch = createIdempotentFetch()
    await expect(fetch('http://[', { method: 'POST' })).rejects.toThrow(TypeError)
    await expect(fetch(url, { method: 'GE T' })).rejects.toThrow(TypeError)
    await expect(fetch(url, { headers: { 'a b': '1' } })).rejects.toThrow(TypeError)
  })

  it('other options of fetch are passed on', async () => {
    const fetch = vi.fn(async (_input: unknown, _init?: RequestInit) => answer(200))
    await createIdempotentFetch({ fetch })(url, { credentials: 'include', redirect: 'manual' })
    expect(fetch.mock.calls[0]?.[1]).toMatchObject({ credentials: 'include', redirect: 'manual' })
  })

  it('uses the fetch that is global when it is called', async () => {
    const fetch = createIdempotentFetch()
    const { fetch: scripted, sent } = scriptedFetch(answer(200))
    vi.stubGlobal('fetch', scripted)
    try {
      await fetch(url)
    } finally {
      vi.unstubAllGlobals()
    }
    expect(sent).toHaveLength(1)
  })
})

describe('options', () => {
  it.each([
    [{ maxAttempts: 0 }, 'Option "maxAttempts" is 0; allowed: 1 to 2147483647.'],
    [{ timeout: Number.NaN }, 'Option "timeout" is NaN; allowed: 1 to 2147483647.'],
    [
      { timeout: Number.POSITIVE_INFINITY },
      'Option "timeout" is Infinity; allowed: 1 to 2147483647.',
    ],
    [{ attemptTimeout: '5s' }, 'Option "attemptTimeout" is 5s; allowed: number.'],
    [{ baseDelay: -1 }, 'Option "baseDelay" is -1; allowed: 0 to 2147483647.'],
    [{ onRetry: true }, 'Option "onRetry" is true; allowed: function.'],
    [{ fetch: 'node-fetch' }, 'Option "fetch" is node-fetch; allowed: function.'],
    [{ key: 'k' }, 'Option "key" is k; allowed: function.'],
    [{ quoted: 'no' }, 'Option "quoted" is no; allowed: boolean.'],
    [{ budget: 5 }, 'Option "budget" is 5; allowed: object.'],
    [{ persist: true }, 'Option "persist" is true; allowed: object.'],
    [{ retries: 3 }, /Option "retries" is 3; allowed: only .*maxAttempts.*persist/],
  ])('%j is refused, with what is allowed', (options, message) => {
    expect(() => createIdempotentFetch(options as object)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringMatching(message) }),
    )
  })

  it('that are undefined, or the least that is allowed, are fine', async () => {
    const least = { maxAttempts: 1, timeout: 1000, attemptTimeout: 1000, ...atOnce }
    const { fetch } = scriptedFetch(answer(200))
    const call = createIdempotentFetch({
      ...least,
      fetch,
      budget: false,
      onRetry: undefined,
    } as object)
    expect((await call(url)).status).toBe(200)
  })
})
