import { Readable } from 'node:stream'
import fastify5, { type FastifyReply, type FastifyRequest } from 'fastify'
import fastify4 from 'fastify4'
import { idempotency } from '../../../../lib/adapters/fastify/fastify.ts'
import { type Driver, type Reply, translate } from '../driver.ts'

const ask = (request: FastifyRequest) => ({
  method: request.method,
  header: (name: string) => request.headers[name] as string | undefined,
})

function driver(name: string, fastify: typeof fastify5): Driver {
  return {
    name,
    async start({ pawl, options, handle }) {
      const app = fastify({ bodyLimit: 5 * 1024 ** 2, forceCloseConnections: true })
      app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
        done(null, body)
      })
      await app.register(idempotency, { pawl, ...translate(options, ask) })
      app.all('/*', async (request, reply) => {
        const { execution, body } = request
        return answer(await handle({ ...ask(request), execution, body: async () => body }), reply)
      })
      app.setErrorHandler((error: Error, _request, reply) =>
        reply.code(500).send({ error: error.message }),
      )
      const url = await app.listen({ port: 0, host: '127.0.0.1' })
      return { url, close: async () => void (await app.close()) }
    },
  }
}

function answer(reply: Reply, out: FastifyReply) {
  out.code(reply.status ?? 200).headers(reply.headers ?? {})
  for (const cookie of reply.cookies ?? []) out.header('set-cookie', cookie)
  if (reply.stream) return out.send(Readable.from(reply.stream()))
  if (reply.json !== undefined) return out.send(reply.json)
  if (reply.text !== undefined) return out.send(reply.text)
  if (reply.bytes) return out.send(reply.bytes)
  return out.send()
}

export const fastify4Driver = driver('Fastify 4', fastify4 as unknown as typeof fastify5)
export const fastify5Driver = driver('Fastify 5', fastify5)
