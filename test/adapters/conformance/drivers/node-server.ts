import { serve } from '@hono/node-server'
import type { Server } from '../driver.ts'

/** Serves what takes a Request and gives a Response. */
export async function serveFetch(
  fetch: (request: Request) => Response | Promise<Response>,
): Promise<Server> {
  const server = await new Promise<ReturnType<typeof serve>>((resolve) => {
    const listening = serve({ fetch, port: 0, hostname: '127.0.0.1' }, () => resolve(listening))
  })
  const { port } = server.address() as { port: number }
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      if ('closeAllConnections' in server) server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
