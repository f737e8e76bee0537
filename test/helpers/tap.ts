import { connect, createServer, type Socket } from 'node:net'

/** Where a chunk is on its way between an app and Postgres. */
export interface Passing {
  /** The statement that this connection has last sent, as far as the chunk shows it. */
  statement: string
  /** Forwards the chunk. Not calling it withholds it, and everything behind it in that direction. */
  forward(): void
  /** Breaks the connection: of both, or only the app's, so that Postgres goes on. */
  destroy(side?: 'app'): void
}

export interface Tap {
  /** The database's URL by way of the tap. */
  url: string
  close(): Promise<void>
}

/**
 * A man in the middle between an app and Postgres that sees each statement leave and each reply come
 * back, so that a test can act exactly there.
 */
export async function startTap(
  databaseUrl: string,
  hooks: {
    onStatement?: (passing: Passing) => void
    onReply?: (passing: Passing) => void
  },
): Promise<Tap> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const server = createServer((app) => {
    const postgres = connect(Number(target.port), target.hostname)
    let statement = ''
    let detached = false
    const destroy = (side?: 'app') => {
      detached = side === 'app'
      app.destroy()
    }
    for (const socket of [app, postgres]) {
      sockets.add(socket)
      socket.on('close', () => {
        app.destroy()
        if (!detached) postgres.destroy()
      })
      socket.on('error', () => {})
    }
    app.on('data', (chunk) => {
      statement = chunk.toString('latin1')
      const forward = () => postgres.write(chunk)
      hooks.onStatement ? hooks.onStatement({ statement, forward, destroy }) : forward()
    })
    postgres.on('data', (chunk) => {
      const forward = () => app.write(chunk)
      hooks.onReply ? hooks.onReply({ statement, forward, destroy }) : forward()
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const url = new URL(databaseUrl)
  url.host = `127.0.0.1:${(server.address() as { port: number }).port}`
  return {
    url: url.href,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Whether this is the statement that claims executions. */
export function isClaim(statement: string): boolean {
  return statement.includes('on conflict (id) do nothing')
}

/** Whether this is the statement that records outcomes. */
export function isCompletion(statement: string): boolean {
  return statement.includes("set status = 'done'")
}
