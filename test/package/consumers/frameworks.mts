import { Module } from '@nestjs/common'
import { type FastifyRequest, fastify } from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { type Execution, Pawl } from 'pawl'
import { idempotency as forFastify } from 'pawl/fastify'
import { executionOf, idempotency as forFetch } from 'pawl/fetch'
import { idempotency as forHono } from 'pawl/hono'
import { idempotency as forKoa } from 'pawl/koa'
import { CurrentExecution, IdempotencyModule, Idempotent, type NestRequest } from 'pawl/nest'

const pawl = new Pawl({ database: 'postgres://localhost/app' })

const app = fastify()
await app.register(forFastify, { pawl, scope: (request: FastifyRequest) => request.ip, wait: 0 })
app.post('/', { config: { idempotency: { resumable: true } } }, async (request) => {
  const execution: Execution | undefined = request.execution
  return { attempt: execution?.attempt }
})
app.post('/free', { config: { idempotency: false } }, async () => 'x')

const hono = new Hono().use(forHono(pawl, { scope: (c) => c.req.header('x-user') ?? '' }))
hono.post('/', (c) => c.json({ attempt: c.get('execution')?.attempt }))

new Koa().use(forKoa(pawl, { scope: (ctx) => ctx.ip }))

export const POST = forFetch(pawl)(async (request, context: { params: Promise<{ id: string }> }) =>
  Response.json({ attempt: executionOf(request)?.attempt, ...(await context.params) }),
)
const handle = forFetch<{ event: { request: Request } }>(pawl, {
  request: ({ event }) => event.request,
})
export const response: Promise<Response> = handle(() => new Response('x'))({
  event: { request: new Request('http://x') },
})
// @ts-expect-error where is the request?
forFetch<{ event: { request: Request } }>(pawl)

interface Signed extends NestRequest {
  user: { id: string }
}
class Orders {
  create(_: Execution) {}
}
Idempotent({ wait: 0 })(
  Orders.prototype,
  'create',
  Object.getOwnPropertyDescriptor(Orders.prototype, 'create')!,
)
Idempotent(false)(Orders)
CurrentExecution()(Orders.prototype, 'create', 0)
Module({
  imports: [IdempotencyModule.forRoot({ pawl, scope: (request: Signed) => request.user.id })],
})(class {})
