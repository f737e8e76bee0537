import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  executionOf,
  type FetchIdempotencyOptions,
  idempotency,
} from '../../../lib/adapters/fetch/fetch.ts'
import { Pawl } from '../../../lib/index.ts'
import { withDatabase } from '../../helpers/database.ts'
import { freshKey } from '../../helpers/request.ts'

const database = withDatabase()
const warnings: { message: string; error?: unknown }[] = []
let pawl: Pawl

beforeEach(async () => {
  warnings.length = 0
  const logger = {
    debug() {},
    warn: (message: string, fields?: object) => void warnings.push({ message, ...fields }),
  }
  pawl = new Pawl({ database: database.apps, drainTimeout: 0, logger })
  await pawl.start()
})
afterEach(() => pawl.stop())

const post = (
  key: string,
  body: string | ReadableStream | null = null,
  headers: Record<string, string> = {},
) =>
  new Request('http://localhost/orders', {
    method: 'POST',
    body,
    headers: { 'Idempotency-Key': key, ...headers },
    ...(body instanceof ReadableStream && { duplex: 'half' }),
  })

async function same(replay: Response, first: Response, body: string) {
  expect(replay.headers.get('idempotent-replayed')).toBe('true')
  expect(replay.status).toBe(first.status)
  expect(await replay.text()).toBe(body)
}

describe('pawl/fetch', () => {
  it('Next.js: a route handler gets its context, and its request as it came', async () => {
    class NextRequest extends Request {}
    const protect = idempotency<NextRequest>(pawl, { scope: () => 'me' })
    const POST = protect(async (request, { params }: { params: Promise<{ id: string }> }) => {
      expect(request).toBeInstanceOf(NextRequest)
      const { id } = await params
      const execution = executionOf(request)
      return Response.json({ id, body: await request.json(), scope: execution?.scope })
    })
    const key = freshKey()
    const ask = (amount: number) =>
      POST(new NextRequest(post(key, JSON.stringify({ amount }))), {
        params: Promise.resolve({ id: '7' }),
      })
    const first = await ask(5)
    const text = await first.text()
    expect(JSON.parse(text)).toEqual({ id: '7', body: { amount: 5 }, scope: 'me' })
    await same(await ask(5), first, text)
    expect((await ask(6)).status).toBe(422)
  })

  it.each([
    ['redirect()', 'NEXT_REDIRECT;replace;/orders;7?a=1;303;', 303, '/orders;7?a=1'],
    ['notFound()', 'NEXT_HTTP_ERROR_FALLBACK;404', 404, null],
    ['forbidden()', 'NEXT_HTTP_ERROR_FALLBACK;403', 403, null],
  ])(
    'Next.js: %s leaves the handler by an error, and is an answer',
    async (_, digest, status, to) => {
      const POST = idempotency(pawl)(() => {
        throw Object.assign(new Error('control flow'), { digest })
      })
      const response = await POST(post(freshKey()))
      expect([response.status, response.headers.get('location')]).toEqual([status, to])
      expect(warnings).toEqual([])
    },
  )

  it('SvelteKit: the request is found in the event, and the options see all of it', async () => {
    interface Input {
      event: { request: Request; locals: { user: string } }
      resolve(event: Input['event']): Promise<Response>
    }
    const handle = idempotency<Input>(pawl, {
      request: ({ event }) => event.request,
      scope: ({ event }) => event.locals.user,
    })(({ event, resolve }) => resolve(event))
    let runs = 0
    const resolve = async ({ request }: Input['event']) =>
      Response.json({ run: ++runs, body: await request.text() })
    const key = freshKey()
    const ask = async (user: string) =>
      (await handle({ event: { request: post(key, 'x'), locals: { user } }, resolve })).json()
    expect(await ask('alice')).toEqual({ run: 1, body: 'x' })
    expect(await ask('bob')).toEqual({ run: 2, body: 'x' })
    expect(await ask('alice')).toEqual({ run: 1, body: 'x' })
  })

  it('a handler that throws answers 500, and the logger gets the error', async () => {
    const boom = new Error('boom')
    let runs = 0
    const handler = idempotency(pawl)(() => {
      runs++
      throw boom
    })
    const key = freshKey()
    const first = await handler(post(key))
    const text = await first.text()
    expect([first.status, JSON.parse(text).type]).toEqual([500, 'urn:pawl:problem:handler-failed'])
    expect(text).not.toContain('boom')
    await same(await handler(post(key)), first, text)
    expect(runs).toBe(1)
    expect(warnings).toMatchObject([{ message: 'a handler threw', error: boom }])
  })

  it('a Response that is thrown is an answer', async () => {
    const handler = idempotency(pawl)(() => {
      throw new Response('gone', { status: 410 })
    })
    const key = freshKey()
    const first = await handler(post(key))
    expect(first.status).toBe(410)
    await same(await handler(post(key)), first, 'gone')
  })

  it('a stream that fails before it is sent is a 500', async () => {
    const handler = idempotency(pawl)(
      () =>
        new Response(
          new ReadableStream({
            start(controller) {
              controller.enqueue(new TextEncoder().encode('half'))
            },
            pull(controller) {
              controller.error(new Error('upstream'))
            },
          }),
        ),
    )
    const key = freshKey()
    const first = await handler(post(key))
    expect(first.status).toBe(500)
    await same(await handler(post(key)), first, await first.text())
  })

  it('a stream over maxBody flows as fast as it is read, and no faster', async () => {
    let made = 0
    let cancelled = false
    const endless = () =>
      new Response(
        new ReadableStream({
          pull(controller) {
            controller.enqueue(new Uint8Array(1024).fill(++made))
          },
          cancel() {
            cancelled = true
          },
        }),
      )
    const handler = idempotency(pawl, { maxBody: '4kb' })(endless)
    const response = await handler(post(freshKey()))
    const before = made
    expect(before).toBeLessThanOrEqual(7) // What is held, and one or two chunks in queues.
    const reader = response.body!.getReader()
    for (let chunk = 1; chunk <= 20; chunk++) {
      const { value } = await reader.read()
      expect([value!.length, value![0]]).toEqual([1024, chunk])
      expect(made).toBeLessThanOrEqual(Math.max(before, chunk + 3))
    }
    await reader.cancel()
    expect(cancelled).toBe(true)
  })

  it('a request whose body was read before is a mistake of the app', async () => {
    const request = post(freshKey(), 'x')
    await request.text()
    const handler = idempotency(pawl)(() => new Response('x'))
    await expect(handler(request)).rejects.toMatchObject({ code: 'body-unreadable' })
  })

  it('a body that comes in pieces is compared as a whole, and read once more by the handler', async () => {
    const handler = idempotency(pawl)(async (request) => new Response(await request.text()))
    const pieces = (...chunks: string[]) =>
      ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk)))
    const key = freshKey()
    const first = await handler(post(key, pieces('ab', 'c')))
    expect(await first.text()).toBe('abc')
    await same(await handler(post(key, pieces('a', 'bc'))), first, 'abc')
    expect((await handler(post(key, pieces('a', 'bd')))).status).toBe(422)
  })

  it('a wrapped handler in a wrapped handler runs under the outer one', async () => {
    const inner = idempotency(pawl, { scope: () => 'inner' })((request) =>
      Response.json(executionOf(request)?.scope ?? null),
    )
    const outer = idempotency(pawl, { scope: () => 'outer' })(inner)
    expect(await (await outer(post(freshKey()))).json()).toBe('outer')
  })

  it('what a browser may read says so', async () => {
    const handler = idempotency(pawl)(
      () => new Response('x', { headers: { 'Access-Control-Allow-Origin': '*' } }),
    )
    const key = freshKey()
    await handler(post(key))
    const replay = await handler(post(key))
    expect(replay.headers.get('access-control-expose-headers')).toBe(
      'Idempotent-Replayed, Retry-After',
    )
  })

  it('wrong options are errors at once', () => {
    expect(() => idempotency(undefined as never)).toThrow(/not a Pawl/)
    expect(() => idempotency(pawl, { wait: 'soon' })).toThrow(/"wait" is "soon"/)
    const wrong = { request: 7 } as unknown as FetchIdempotencyOptions
    expect(() => idempotency(pawl, wrong)).toThrow(/"request" is not a function/)
  })
})
