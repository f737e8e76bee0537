import type { Server as HttpServer } from 'node:http'
import { Readable } from 'node:stream'
import Koa from 'koa'
import { idempotency } from '../../../../lib/adapters/koa.ts'
import { type Asked, type Driver, translate } from '../driver.ts'
import { parsedBody } from './parsed-body.ts'

const ask = (ctx: Koa.Context): Asked => ({
  method: ctx.method,
  header: (name) => ctx.get(name) || undefined,
})

export const koaDriver: Driver = {
  name: 'Koa',
  async start({ pawl, options, handle }) {
    const app = new Koa()
    app.silent = true
    app.use(idempotency(pawl, translate(options, ask)))
    app.use(async (ctx) => {
      const reply = await handle({
        ...ask(ctx),
        execution: ctx.state.execution,
        body: async () => parsedBody(ctx.get('content-type'), await ctx.req.toArray()),
      })
      ctx.status = reply.status ?? 200
      ctx.set(reply.headers ?? {})
      for (const cookie of reply.cookies ?? []) ctx.append('Set-Cookie', cookie)
      if (reply.stream) ctx.body = Readable.from(reply.stream())
      else if (reply.json !== undefined) ctx.body = reply.json
      else if (reply.text !== undefined) ctx.body = reply.text
      else if (reply.bytes) ctx.body = Buffer.from(reply.bytes)
      else ctx.body = null
      // A body has given it a status and a type of its own.
      ctx.status = reply.status ?? 200
      ctx.set(reply.headers ?? {})
    })
    const server = await new Promise<HttpServer>((resolve) => {
      const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
    })
    const { port } = server.address() as { port: number }
    return {
      url: `http://127.0.0.1:${port}`,
      async close() {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  },
}
