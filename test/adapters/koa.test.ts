import { once } from 'node:events'
import type { Server } from 'node:http'
import http2 from 'node:http2'
import Router from '@koa/router'
import Koa from 'koa'
import { afterEach, describe, expect, it } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/koa.ts'
import { Pawl } from '../../lib/index.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { twice } from '../helpers/twice.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function start(build: (app: Koa, pawl: Pawl) => void) {
  const pawl = new Pawl({ database: database.apps, logger: silent, drainTimeout: 0 })
  closing.push(() => pawl.stop())
  await pawl.start()
  const app = new Koa()
  app.silent = true
  build(app, pawl)
  const server = await new Promise<Server>((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
  })
  closing.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`
}

const parseJson: Koa.Middleware = async (ctx, next) => {
  const text = Buffer.concat(await ctx.req.toArray()).toString()
  Object.assign(ctx.request, { body: text ? JSON.parse(text) : {} })
  await next()
}

describe('Koa', () => {
  it.each(['before', 'after'])(
    'mounted %s the body parser, another body is a 422',
    async (where) => {
      const url = await start((app, pawl) => {
        const chain = [idempotency(pawl), parseJson]
        for (const middleware of where === 'before' ? chain : chain.toReversed())
          app.use(middleware)
        app.use((ctx) => {
          ctx.body = { body: (ctx.request as { body?: unknown }).body, at: Math.random() }
        })
      })
      const key = freshKey()
      const ask = (body: string) => request(url, { key, body })
      const first = await ask('{"a":1,"b":2}')
      expect(first.json.body).toEqual({ a: 1, b: 2 })
      expect((await ask('{"a":1,"b":2}')).body).toEqual(first.body)
      expect((await ask('{"a":2,"b":2}')).status).toBe(422)
      expect((await ask('{"b":2, "a":1}')).status).toBe(where === 'before' ? 422 : 200)
    },
  )

  it('on a route of a router, behind authentication', async () => {
    const url = await start((app, pawl) => {
      app.use(async (ctx, next) => {
        ctx.state.user = ctx.get('x-user')
        await next()
      })
      const router = new Router({ prefix: '/v1' })
      const options: IdempotencyOptions<Koa.Context> = { scope: (ctx) => ctx.state.user }
      router.post('/orders', idempotency(pawl, options), (ctx) => {
        ctx.status = 201
        ctx.body = { scope: ctx.state.execution.scope, at: Math.random() }
      })
      router.post('/free', (ctx) => {
        ctx.body = { at: Math.random() }
      })
      app.use(router.routes())
    })
    const first = await twice(`${url}/v1/orders`, { headers: { 'X-User': 'alice' } })
    expect([first.status, first.json.scope]).toEqual([201, 'alice'])
    const key = freshKey()
    const free = async () => (await request(`${url}/v1/free`, { key })).json.at
    expect(await free()).not.toBe(await free())
  })

  it('what Koa makes of errors and of nothing is stored and replayed', async () => {
    let runs = 0
    const url = await start((app, pawl) => {
      app.use(idempotency(pawl))
      app.use((ctx) => {
        runs++
        if (ctx.path === '/expected') ctx.throw(409, `taken ${runs}`, { headers: { 'X-Why': 'x' } })
        if (ctx.path === '/failure') throw new Error('boom')
      })
    })
    const expected = await twice(`${url}/expected`)
    expect([expected.status, expected.text]).toEqual([409, 'taken 1'])
    expect(expected.headers['x-why']).toBe('x')
    expect((await twice(`${url}/failure`)).text).toBe('Internal Server Error')
    expect((await twice(`${url}/nothing`)).status).toBe(404)
    expect(runs).toBe(3)
  })

  it('an answer of Pawl has the reason of its own status', async () => {
    const url = await start((app, pawl) => {
      app.use(async (ctx, next) => {
        ctx.status = 201
        await next()
      })
      app.use(idempotency(pawl))
      app.use((ctx) => {
        ctx.body = 'x'
      })
    })
    const response = await fetch(url, { method: 'POST', headers: { 'Idempotency-Key': '"open' } })
    expect([response.status, response.statusText]).toEqual([400, 'Bad Request'])
  })

  it('mistakes of the app are thrown, for the middleware around', async () => {
    const url = await start((app, pawl) => {
      app.use(async (ctx, next) => {
        try {
          await next()
        } catch (error) {
          ctx.status = 500
          ctx.body = { code: (error as { code?: string }).code }
        }
      })
      app.use(idempotency(pawl, { scope: () => undefined as never }))
    })
    const answer = await request(url, { key: freshKey() })
    expect([answer.status, answer.json]).toEqual([500, { code: 'scope-invalid' }])
  })

  it('over HTTP/2 requests are kept apart, replayed and cut off, and late answers count', async () => {
    let answer: (() => void) | undefined
    const pawl = new Pawl({ database: database.apps, logger: silent, drainTimeout: 0 })
    closing.push(() => pawl.stop())
    await pawl.start()
    const app = new Koa()
    app.use(idempotency(pawl, { timeout: 300 }))
    app.use(async (ctx) => {
      if (ctx.path === '/slow') {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
      }
      ctx.status = 201
      ctx.set('X-One', '1')
      ctx.body = Buffer.concat(await ctx.req.toArray())
    })
    const server = http2.createServer(app.callback())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    const client = http2.connect(`http://127.0.0.1:${port}`)
    closing.push(async () => {
      client.close()
      await new Promise((resolve) => server.close(resolve))
    })
    const post = async (path: string, key: string, body = '') => {
      const headers = { ':method': 'POST', ':path': path, 'idempotency-key': key }
      const stream = client.request(headers)
      stream.end(body)
      const [answered] = await once(stream, 'response')
      return { headers: answered, text: (await stream.toArray()).join('') }
    }
    const key = freshKey()
    const first = await post('/', key, 'a')
    expect([first.headers[':status'], first.text]).toEqual([201, 'a'])
    const replay = await post('/', key, 'a')
    expect([replay.headers[':status'], replay.text, replay.headers['x-one']]).toEqual([
      201,
      'a',
      '1',
    ])
    expect(replay.headers['idempotent-replayed']).toBe('true')
    expect((await post('/', key, 'b')).headers[':status']).toBe(422)
    const slow = freshKey()
    expect((await post('/slow', slow, 'a')).headers[':status']).toBe(504)
    answer?.()
    await waitFor(
      'the late answer',
      async () => (await pawl.find({ key: slow }))?.status === 'done',
    )
    expect((await post('/slow', slow, 'a')).text).toBe('a')
  })

  it('mounted twice, the first that finds a key handles the request', async () => {
    const url = await start((app, pawl) => {
      app.use(idempotency(pawl, { scope: () => 'outer' }))
      app.use(idempotency(pawl, { scope: () => 'inner' }))
      app.use((ctx) => {
        ctx.body = ctx.state.execution.scope
      })
    })
    expect((await twice(url)).text).toBe('outer')
  })
})
