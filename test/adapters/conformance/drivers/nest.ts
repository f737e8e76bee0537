import { Readable } from 'node:stream'
import {
  All,
  Controller,
  type INestApplication,
  Module,
  Req,
  Res,
  StreamableFile,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ExpressAdapter, type NestExpressApplication } from '@nestjs/platform-express'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import { IdempotencyModule, type NestRequest } from '../../../../lib/adapters/nest/nest.ts'
import { decorate } from '../../../helpers/decorate.ts'
import { type Asked, type Driver, type Neutral, type Reply, translate } from '../driver.ts'

const ask = (request: NestRequest): Asked => ({
  method: request.method,
  header: (name) => request.headers[name] as string | undefined,
})

/** What both platforms' responses have. */
interface Out {
  status(code: number): unknown
  header(name: string, value: string | string[]): unknown
}

/** @param everything the platform's pattern of all paths */
function rootModule({ pawl, options, handle }: Neutral, everything: string) {
  class Catcher {
    async all(request: NestRequest, out: Out) {
      const { execution, body } = request
      return answer(await handle({ ...ask(request), execution, body: async () => body }), out)
    }
  }
  decorate(Catcher, [Controller()], {
    all: { on: [All(everything)], parameters: [Req(), Res({ passthrough: true })] },
  })
  class Root {}
  const idempotency = IdempotencyModule.forRoot({
    pawl,
    lifecycle: false,
    ...translate(options, ask),
  })
  decorate(Root, [Module({ imports: [idempotency], controllers: [Catcher] })])
  return Root
}

function answer(reply: Reply, out: Out) {
  out.status(reply.status ?? 200)
  for (const [name, value] of Object.entries(reply.headers ?? {})) out.header(name, value)
  if (reply.cookies) out.header('Set-Cookie', reply.cookies)
  if (reply.stream) return new StreamableFile(Readable.from(reply.stream()))
  if (reply.bytes) return new StreamableFile(reply.bytes)
  return reply.json ?? reply.text
}

function driver(
  name: string,
  everything: string,
  create: (root: object) => Promise<INestApplication>,
): Driver {
  return {
    name,
    impossible: {
      'a body over maxRequestBody is refused, and the handler does not run':
        'the parser of Nest has read the body before, and its limit counts',
      'a stream that begins after the 202 is stored whole':
        'Nest reads no StreamableFile any more when the connection of its client is closed',
    },
    async start(app) {
      const nest = await create(rootModule(app, everything))
      await nest.listen(0, '127.0.0.1')
      return {
        url: await nest.getUrl(),
        async close() {
          const server = nest.getHttpServer()
          server.closeAllConnections()
          await nest.close()
        },
      }
    },
  }
}

export const nestExpressDriver = driver('Nest on Express', '{*path}', async (root) => {
  const nest = await NestFactory.create<NestExpressApplication>(root, new ExpressAdapter(), {
    logger: false,
  })
  nest.useBodyParser('json', { limit: '5mb' })
  nest.useBodyParser('text')
  nest.useBodyParser('raw')
  return nest
})

export const nestFastifyDriver = driver('Nest on Fastify', '*', async (root) => {
  const adapter = new FastifyAdapter({ bodyLimit: 5 * 1024 ** 2, forceCloseConnections: true })
  const nest = await NestFactory.create<NestFastifyApplication>(root, adapter, { logger: false })
  const fastify = adapter.getInstance()
  // As @fastify/multipart does it: whoever wants the form reads it.
  fastify.addContentTypeParser('multipart/form-data', (_request, _payload, done) => done(null))
  fastify.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body)
  })
  return nest
})
