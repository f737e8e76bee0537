import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  createIdempotentFetch,
  type IdempotentFetchError,
  type IdempotentFetchOptions,
  RetryBudget,
} from '../../lib/client/index.ts'
import {
  answer,
  atOnce,
  networkError,
  problem,
  type Step,
  scriptedFetch,
  silence,
} from './scripted-fetch.ts'

const url = 'https://shop.example/orders'

beforeEach(() => {
  vi.useFakeTimers()
  // The upper bound of every jitter, so that delays are exact.
  vi.spyOn(Math, 'random').mockReturnValue(1)
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** Starts a call, lets all of its time pass, and says when it was sent, in ms from the start. */
async function run(steps: Step[], options: IdempotentFetchOptions = {}, init: object = {}) {
  const at: number[] = []
  const start = performance.now()
  const script = scriptedFetch(...steps)
  const call = createIdempotentFetch({
    fetch(input, init) {
      at.push(Math.round(performance.now() - start))
      return script.fetch(input, init)
    },
    ...options,
  })
  const settled = call(url, { method: 'POST', key: 'k', ...init }).then(
    (response) => ({ response, error: undefined, took: performance.now() - start }),
    (error: IdempotentFetchError) => ({
      response: undefined,
      error,
      took: performance.now() - start,
    }),
  )
  // Also those of others in this worker, which may be later.
  await vi.runAllTimersAsync()
  return { ...(await settled), at, sent: script.sent }
}

describe('which answers are retried', () => {
  const retried = [408, 425, 429, 500, 502, 503, 504, 507, 520, 599]
  it.each(retried)('%d is', async (status) => {
    const { response, sent } = await run([answer(status), answer(201)])
    expect(response).toMatchObject({ status: 201, attempts: 2 })
    expect(sent).toHaveLength(2)
  })

  const final = [200, 204, 301, 304, 400, 401, 403, 404, 409, 410, 412, 413, 422, 424, 428]
  it.each([...final, 501, 505, 506, 508, 510, 511])('%d is not', async (status) => {
    const { response } = await run([answer(status), answer(201)])
    expect(response).toMatchObject({ status, attempts: 1 })
  })

  it('a network error is', async () => {
    const { response } = await run([networkError(), networkError(), answer(201)])
    expect(response).toMatchObject({ status: 201, attempts: 3 })
  })

  it('409 in-progress is', async () => {
    const busy = problem(409, 'in-progress', { 'Retry-After': '1' })
    const { response } = await run([busy, answer(201)])
    expect(response).toMatchObject({ status: 201, attempts: 2 })
  })

  it('409 in-progress is, even if Retry-After is hidden from the page', async () => {
    const { response } = await run([problem(409, 'in-progress'), answer(201)])
    expect(response?.attempts).toBe(2)
  })

  it('409 outcome-unknown never is, even with Retry-After', async () => {
    const unknown = problem(409, 'outcome-unknown', { 'Retry-After': '1' })
    const { response } = await run([unknown, answer(201)])
    expect(response).toMatchObject({ status: 409, attempts: 1 })
    expect(await response?.json()).toMatchObject({ type: 'urn:pawl:problem:outcome-unknown' })
  })

  it('409 of other servers is, if it has Retry-After', async () => {
    const { response } = await run([answer(409, { 'Retry-After': '1' }, 'no JSON'), answer(201)])
    expect(response?.attempts).toBe(2)
  })

  it.each([
    [400, 'key-malformed'],
    [422, 'request-mismatch'],
    [413, 'body-too-large'],
  ])('%d %s never is', async (status, code) => {
    const { response } = await run([problem(status, code, { 'Retry-After': '1' }), answer(201)])
    expect(response).toMatchObject({ status, attempts: 1 })
  })

  it('a replayed 500 is the recorded outcome, and final', async () => {
    const replay = answer(500, { 'Idempotent-Replayed': 'true' })
    const { response } = await run([answer(500), replay, answer(201)])
    expect(response).toMatchObject({ status: 500, attempts: 2, replayed: true })
  })

  it.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])(
    '%s is retried without a key',
    async (method) => {
      const { response, sent } = await run(
        [networkError(), answer(503), answer(200)],
        {},
        { method, key: undefined },
      )
      expect(response?.attempts).toBe(3)
      expect(sent[0]?.headers.has('Idempotency-Key')).toBe(false)
    },
  )

  it('other methods without a key are sent once', async () => {
    const init = { method: 'PROPPATCH', key: undefined }
    const answered = await run([answer(503), answer(200)], {}, init)
    expect(answered.response).toMatchObject({ status: 503, attempts: 1 })
    const failed = await run([networkError(), answer(200)], {}, init)
    expect(failed.error).toBeInstanceOf(TypeError)
  })
})

describe('when it comes back', () => {
  it('backs off exponentially, up to maxDelay', async () => {
    const { at } = await run([answer(503)], { maxAttempts: 6, baseDelay: 100, maxDelay: 500 })
    expect(at).toEqual([0, 100, 300, 700, 1200, 1700])
  })

  it('with full jitter', async () => {
    vi.mocked(Math.random).mockReturnValueOnce(0).mockReturnValueOnce(0.5).mockReturnValueOnce(0.25)
    const { at } = await run([answer(503)], { maxAttempts: 4, baseDelay: 100 })
    expect(at).toEqual([0, 0, 100, 200])
  })

  it('adds the jitter to Retry-After in seconds', async () => {
    const { at } = await run([answer(429, { 'Retry-After': '7' }), answer(200)], { baseDelay: 50 })
    expect(at).toEqual([0, 7050])
  })

  it('understands Retry-After as a date, by the clock of the server', async () => {
    vi.setSystemTime('2026-03-01T12:00:00Z') // The client's clock is ten minutes behind.
    const late = answer(503, {
      Date: 'Sun, 01 Mar 2026 12:10:00 GMT',
      'Retry-After': 'Sun, 01 Mar 2026 12:10:09 GMT',
    })
    const { at } = await run([late, answer(200)], { baseDelay: 0 })
    expect(at).toEqual([0, 9000])
  })

  it('understands it without the clock of the server, and in the past', async () => {
    vi.setSystemTime('2026-03-01T12:00:00Z')
    const soon = answer(503, { 'Retry-After': 'Sun, 01 Mar 2026 12:00:04 GMT' })
    const past = answer(503, { 'Retry-After': 'Sun, 01 Mar 2026 11:00:00 GMT' })
    expect((await run([soon, answer(200)], { baseDelay: 0 })).at).toEqual([0, 4000])
    expect((await run([past, answer(200)], { baseDelay: 10 })).at).toEqual([0, 10])
  })

  it.each(['soon', '-5', '1.5', ''])('ignores Retry-After: %j', async (value) => {
    const { at } = await run([answer(503, { 'Retry-After': value }), answer(200)], {
      baseDelay: 10,
    })
    expect(at).toEqual([0, 10])
  })

  it('caps Retry-After', async () => {
    const options = { baseDelay: 0, maxRetryAfter: 5000 }
    const { at } = await run([answer(503, { 'Retry-After': '3600' }), answer(200)], options)
    expect(at).toEqual([0, 5000])
  })
})

describe('when it gives up', () => {
  it('after maxAttempts it returns the last answer', async () => {
    const onGiveUp = vi.fn()
    const options = { ...atOnce, maxAttempts: 3, onGiveUp }
    const { response } = await run([answer(500), answer(502), answer(503, {}, 'sick')], options)
    expect(response).toMatchObject({ status: 503, attempts: 3, replayed: false, key: 'k' })
    expect(await response?.text()).toBe('sick')
    expect(onGiveUp).toHaveBeenCalledWith(
      expect.objectContaining({ status: 503, attempts: 3, key: 'k', why: 'maxAttempts' }),
    )
  })

  it('returns the last answer even if network errors came after it', async () => {
    const options = { ...atOnce, maxAttempts: 3 }
    const { response } = await run([answer(503, {}, 'sick'), networkError()], options)
    expect(response).toMatchObject({ status: 503, attempts: 3 })
    expect(await response?.text()).toBe('sick')
  })

  it('throws the network error with attempts and key if there was no answer', async () => {
    const last = networkError()
    const { error } = await run([networkError(), last], { ...atOnce, maxAttempts: 2 })
    expect(error).toMatchObject({
      name: 'IdempotentFetchError',
      code: 'no-answer',
      attempts: 2,
      key: 'k',
      message: `No answer to POST ${url} in 2 attempts (maxAttempts)`,
    })
    expect(error?.cause).toBe(last)
  })

  it('an attempt is given up after attemptTimeout', async () => {
    const options = { ...atOnce, attemptTimeout: 1000, maxAttempts: 3 }
    const { error, at, sent } = await run([silence], options)
    expect(at).toEqual([0, 1000, 2000])
    expect(sent.every(({ signal }) => signal.aborted)).toBe(true)
    expect(error?.cause).toMatchObject({
      name: 'TimeoutError',
      message: 'No answer within 1000 ms',
    })
  })

  it('attemptTimeout covers the body too', async () => {
    const stuck: Step = ({ signal }) =>
      new Response(
        new ReadableStream({
          start(controller) {
            controller.enqueue(new Uint8Array(1))
            signal.addEventListener('abort', () => controller.error(signal.reason))
          },
        }),
      )
    const { response, at } = await run([stuck, answer(201)], { ...atOnce, attemptTimeout: 1000 })
    expect(at).toEqual([0, 1000])
    expect(response?.status).toBe(201)
  })

  it('the whole call ends by timeout, and the last attempt is cut short', async () => {
    const options = { ...atOnce, attemptTimeout: 1000, timeout: 2500 }
    const { error, took } = await run([silence], options)
    expect(error?.message).toMatch(/in 3 attempts \(timeout\)/)
    expect(took).toBeCloseTo(2500, 0)
  })

  it('does not wait for an attempt that timeout would not allow', async () => {
    const { response, took } = await run([answer(503, { 'Retry-After': '30' })], {
      timeout: 10_000,
    })
    expect(response?.status).toBe(503)
    expect(took).toBe(0)
  })

  it('waits for a request in progress as long as timeout allows', async () => {
    const busy = problem(409, 'in-progress', { 'Retry-After': '1' })
    const options = {
      maxAttempts: 1,
      baseDelay: 0,
      timeout: 20_500,
      budget: new RetryBudget({ capacity: 0 }),
    }
    const { response } = await run([busy], options)
    expect(response).toMatchObject({ status: 409, attempts: 21 })
  })
})

describe('aborting', () => {
  const abortAfter = (ms: number, reason?: unknown) => {
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), ms)
    return controller.signal
  }

  it('ends an attempt, with the reason', async () => {
    const reason = new Error('left the page')
    const { error, sent } = await run([silence], {}, { signal: abortAfter(100, reason) })
    expect(error).toBe(reason)
    expect(sent).toHaveLength(1)
    expect(sent[0]?.signal.reason).toBe(reason)
  })

  it('ends a wait', async () => {
    const { error, sent, took } = await run(
      [answer(503)],
      { baseDelay: 10_000 },
      { signal: abortAfter(100) },
    )
    expect(error?.name).toBe('AbortError')
    expect(sent).toHaveLength(1)
    expect(took).toBe(100)
  })

  it('before the call sends nothing', async () => {
    const { error, sent } = await run([answer(200)], {}, { signal: AbortSignal.abort() })
    expect(error?.name).toBe('AbortError')
    expect(sent).toHaveLength(0)
  })

  it('leaves no listeners on a signal that lives on', async () => {
    const { signal } = new AbortController()
    const added = vi.spyOn(signal, 'addEventListener')
    const removed = vi.spyOn(signal, 'removeEventListener')
    await run([answer(503), networkError(), answer(201)], {}, { signal })
    expect(added.mock.calls.length).toBeGreaterThan(0)
    const remaining = added.mock.calls.map(([, listener]) => listener)
    for (const [, listener] of removed.mock.calls) remaining.splice(remaining.indexOf(listener), 1)
    expect(remaining).toEqual([])
  })
})

describe('the retry budget', () => {
  it('is spent by retries that fail, and then calls are sent once', async () => {
    const script = scriptedFetch(answer(503))
    const budget = new RetryBudget({ capacity: 10, ratio: 0.2 })
    const onGiveUp = vi.fn()
    const call = createIdempotentFetch({
      fetch: script.fetch,
      ...atOnce,
      maxAttempts: 4,
      budget,
      onGiveUp,
    })
    const calls = Promise.all(Array.from({ length: 100 }, () => call(url, { method: 'POST' })))
    await vi.runAllTimersAsync()
    expect((await calls).every((response) => response.status === 503)).toBe(true)
    // A hundred calls, and not three hundred retries but ten.
    expect(script.sent).toHaveLength(110)
    expect(onGiveUp).toHaveBeenLastCalledWith(expect.objectContaining({ why: 'budget' }))
  })

  it('is earned again by answers, a fifth of a retry each', async () => {
    const budget = new RetryBudget({ capacity: 1 })
    expect(budget.withdraw()).toBe(true)
    for (let n = 0; n < 4; n++) await run([answer(200)], { budget })
    expect(budget.withdraw()).toBe(false)
    await run([answer(200)], { budget })
    expect(budget.withdraw()).toBe(true)
  })

  it('is not spent by retries that help', async () => {
    const budget = new RetryBudget({ capacity: 1 })
    for (let n = 0; n < 10; n++) {
      const { response } = await run([networkError(), answer(201)], { ...atOnce, budget })
      expect(response?.attempts).toBe(2)
    }
  })

  it('is never more than its capacity', () => {
    const budget = new RetryBudget({ capacity: 2 })
    for (let n = 0; n < 100; n++) budget.deposit(true)
    expect([budget.withdraw(), budget.withdraw(), budget.withdraw()]).toEqual([true, true, false])
  })

  it('holds for a hundred failing retries by default, and can be switched off', async () => {
    const failing = async (options: IdempotentFetchOptions) => {
      const script = scriptedFetch(answer(503))
      const call = createIdempotentFetch({ fetch: script.fetch, ...atOnce, ...options })
      const calls = Promise.all(Array.from({ length: 50 }, () => call(url, { method: 'POST' })))
      await vi.runAllTimersAsync()
      await calls
      return script.sent.length
    }
    expect(await failing({})).toBe(150)
    expect(await failing({ budget: false })).toBe(400)
  })
})

describe('hooks', () => {
  it('onRetry says what happened and what comes', async () => {
    const failure = networkError()
    const onRetry = vi.fn()
    await run([failure, answer(503, { 'Retry-After': '2' }), answer(201)], {
      baseDelay: 100,
      onRetry,
    })
    const call = { url, method: 'POST', key: 'k' }
    expect(onRetry.mock.calls.map(([info]) => info)).toEqual([
      { ...call, attempts: 1, status: undefined, error: failure, delay: 100 },
      { ...call, attempts: 2, status: 503, error: undefined, delay: 2200 },
    ])
  })

  it('onRetry is awaited, and what it throws ends the call', async () => {
    const onRetry = async () => {
      throw new Error('not today')
    }
    const { error, sent } = await run([answer(503)], { onRetry })
    expect(error?.message).toBe('not today')
    expect(sent).toHaveLength(1)
  })
})
