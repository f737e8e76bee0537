import type { Server as HttpServer } from 'node:http'
import { Readable } from 'node:stream'
import express5, { type ErrorRequestHandler, type Request } from 'express'
import express4 from 'express4'
import { idempotency } from '../../../../lib/adapters/express.ts'
import { type Driver, type Reply, translate } from '../driver.ts'

const ask = (req: Request) => ({ method: req.method, header: (name: string) => req.get(name) })

function driver(name: string, express: typeof express5): Driver {
  return {
    name,
    async start({ pawl, options, handle }) {
      const app = express()
      app.set('env', 'test') // The final handler then logs no errors.
      app.use(idempotency(pawl, translate(options, ask)))
      app.use(express.json({ limit: '5mb' }), express.text(), express.raw({ type: () => true }))
      app.use(async (req, res, next) => {
        try {
          const { execution } = req
          answer(await handle({ ...ask(req), execution, body: async () => req.body }), res)
        } catch (error) {
          next(error)
        }
      })
      app.use(((error, _req, res, _next) => {
        res.status(500).json({ error: error.message })
      }) as ErrorRequestHandler)
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
}

function answer(reply: Reply, res: express5.Response) {
  res.status(reply.status ?? 200).set(reply.headers ?? {})
  for (const cookie of reply.cookies ?? []) res.append('Set-Cookie', cookie)
  if (reply.stream) Readable.from(reply.stream()).pipe(res)
  else if (reply.json !== undefined) res.json(reply.json)
  else if (reply.text !== undefined) res.send(reply.text)
  else if (reply.bytes) res.send(Buffer.from(reply.bytes))
  else res.end()
}

export const express4Driver = driver('Express 4', express4 as unknown as typeof express5)
export const express5Driver = driver('Express 5', express5)
