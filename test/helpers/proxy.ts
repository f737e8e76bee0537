import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { freePort } from './free-port.ts'

/** A TCP proxy in front of a database, that fails on demand. */
export interface Proxy {
  /** The database's URL by way of the proxy. */
  url: string
  /** Ends all connections at once; new ones succeed. */
  cut(): void
  /**
   * Loses all open connections without telling the app, as a failover does; new ones succeed. What the app
   * then sends on a lost one is answered with a reset, or with nothing at all.
   */
  forget(answer: 'reset' | 'silence'): void
  /** Refuses new connections; those that are open stay. */
  refuse(): void
  /** Nothing passes in either direction any more; new connections are accepted and stay silent. */
  freeze(): void
  /** Ends `refuse` and `freeze`: what was held back arrives now, even from peers that are gone. */
  restore(): void
  close(): Promise<void>
}

/** @param databaseUrl of the database behind the proxy */
export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const forgotten = new WeakMap<Socket, 'reset' | 'silence'>()
  const apps = new Set<Socket>()
  /** Connections of the app on which it waits for a reply. */
  const waiting = new WeakSet<Socket>()
  let held: (() => void)[] = []
  let frozen = false
  /** In order: what arrives while others are held waits behind them. */
  const pass = (action: () => void) => {
    if (frozen) held.push(action)
    else action()
  }
  const server = createServer((app) => {
    apps.add(app)
    app.on('close', () => apps.delete(app))
    const postgres = connect(Number(target.port || 5432), target.hostname)
    for (const [from, to] of [
      [app, postgres],
      [postgres, app],
    ] as const) {
      sockets.add(from)
      from.on('data', (chunk) => {
        const answer = forgotten.get(from)
        if (answer === 'reset') from.resetAndDestroy()
        if (answer) return
        if (apps.has(from)) waiting.add(from)
        else waiting.delete(to)
        pass(() => to.write(chunk))
      })
      from.on('close', () => {
        sockets.delete(from)
        if (forgotten.has(to)) return
        // Gracefully, so that what was written before still arrives.
        pass(() => to.end())
      })
      from.on('error', () => {})
    }
  })
  // One that no outgoing connection takes while connections are refused.
  const port = await freePort()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(databaseUrl)
  url.host = `127.0.0.1:${port}`
  const cut = () => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  return {
    url: url.href,
    cut,
    forget: (answer) => {
      for (const socket of apps) {
        forgotten.set(socket, answer)
        // Its statement arrives nowhere, and is answered like one that is sent a moment later.
        if (answer === 'reset' && waiting.has(socket)) socket.resetAndDestroy()
      }
      // Only now: closing the database's side of one that is not forgotten would end the app's.
      for (const socket of sockets) if (!apps.has(socket)) socket.destroy()
    },
    refuse: () => {
      server.close()
    },
    freeze: () => {
      frozen = true
    },
    restore: () => {
      frozen = false
      for (const action of held.splice(0)) action()
      if (!server.listening) server.listen(port, '127.0.0.1')
    },
    async close() {
      held = []
      cut()
      if (server.listening) await new Promise((resolve) => server.close(resolve))
    },
  }
}
