import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** What is left of a Fastify instance here. */
export interface FastifyLike {
  ready(): PromiseLike<unknown>
  routing: RequestListener
}

/**
 * An app that answers requests: an Express app, or anything else that Node's `http.createServer` takes; a
 * Fastify instance; or the URL at which it listens already.
 */
export type TestableApp = RequestListener | FastifyLike | string

/** An app that can be reached. */
export interface Listening {
  url: string
  close(): Promise<void>
  /** Lets go of its port and its connections as a dying process does: its code hears nothing of it. */
  bury(): void
}

/** Listens on a port of this machine that is free. */
export async function listen(app: TestableApp): Promise<Listening> {
  if (typeof app === 'string') return { url: app, close: async () => {}, bury: () => {} }
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
    bury() {
      for (const emitter of [...sockets, ...messages]) {
        emitter.removeAllListeners()
        emitter.on('error', () => {})
      }
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}
