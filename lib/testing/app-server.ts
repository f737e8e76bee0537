/** Serves the app under test over HTTP on a free local port. */

import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** The part of a Fastify instance that the test uses. */
export interface FastifyLike {
  ready(): PromiseLike<unknown>
  routing: RequestListener
}

/**
 * The app under test: an Express app, or any other listener for Node's `http.createServer`; a Fastify
 * instance; or the URL of an app that already listens.
 */
export type TestableApp = RequestListener | FastifyLike | string

/** A server that serves the app. */
export interface AppServer {
  url: string
  close(): Promise<void>
  /** Closes the port and all connections, as a crash does: the app's code gets no event of it. */
  destroy(): void
}

/** Serves the app on a free port of the local machine. */
export async function serveApp(app: TestableApp): Promise<AppServer> {
  if (typeof app === 'string') return { url: app, close: async () => {}, destroy: () => {} }
  if ('routing' in app) await app.ready()
  const server = createServer('routing' in app ? app.routing : app)
  const sockets = new Set<Socket>()
  const messages = new Set<IncomingMessage | ServerResponse>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.prependListener('request', (...exchange) => {
    for (const message of exchange) {
      messages.add(message)
      message.on('close', () => messages.delete(message))
    }
  })
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
    destroy() {
      for (const emitter of [...sockets, ...messages]) {
        emitter.removeAllListeners()
        emitter.on('error', () => {})
      }
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}
