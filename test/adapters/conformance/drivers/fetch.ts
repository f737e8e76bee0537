import { executionOf, idempotency } from '../../../../lib/adapters/fetch/fetch.ts'
import { type Asked, type Driver, type Reply, translate } from '../driver.ts'
import { serveFetch } from './node-server.ts'
import { parsedBody } from './parsed-body.ts'

export const ask = (request: Request): Asked => ({
  method: request.method,
  header: (name) => request.headers.get(name) ?? undefined,
})

export async function bodyOf(request: Request): Promise<unknown> {
  const bytes = new Uint8Array(await request.arrayBuffer())
  return parsedBody(request.headers.get('content-type') ?? '', [bytes])
}

export function responseOf({ status = 200, ...reply }: Reply): Response {
  const headers = new Headers()
  for (const [name, value] of Object.entries(reply.headers ?? {})) {
    for (const line of [value].flat()) headers.append(name, line)
  }
  for (const cookie of reply.cookies ?? []) headers.append('Set-Cookie', cookie)
  if (reply.json !== undefined) return Response.json(reply.json, { status, headers })
  const body =
    reply.text ??
    (reply.bytes && new Uint8Array(reply.bytes)) ??
    (reply.stream && ReadableStream.from(reply.stream()))
  return new Response(body ?? null, { status, headers })
}

/** Handlers as Next.js, SvelteKit, Bun and Deno have them. */
export const fetchDriver: Driver = {
  name: 'Fetch',
  async start({ pawl, options, handle }) {
    const protect = idempotency(pawl, translate(options, ask))
    const handler = protect(async (request: Request) =>
      responseOf(
        await handle({
          ...ask(request),
          execution: executionOf(request),
          body: () => bodyOf(request),
        }),
      ),
    )
    return serveFetch(async (request) => {
      try {
        return await handler(request)
      } catch (error) {
        return Response.json({ error: (error as Error).message }, { status: 500 })
      }
    })
  },
}
