/** Asks PostgreSQL to cancel the statement that runs on a connection of node-postgres. */

import type { PgClient, PgPool } from './pg-pool.ts'

/** What node-postgres' own client has, and a native one or another library's may not. */
interface CancellableClient {
  host?: string
  port?: number
  processID?: number | null
  secretKey?: number | null
  ssl?: unknown
  sslNegotiation?: string
  connection?: ProtocolConnection
}

interface ProtocolConnection {
  connect(port: number | string, host?: string): void
  cancel(processID: number, secretKey: number): void
  requestSsl(): void
  once(event: string, listener: () => void): void
  on(event: 'error', listener: () => void): void
  stream: { destroy(): void }
}

/**
 * Sends the protocol's CancelRequest over a connection of its own (PostgreSQL documentation, "Canceling Requests in
 * Progress"). Not `pg_cancel_backend`: behind a pooler the process id of a client is another client's backend.
 *
 * Resolves once the server has closed the connection, and so has handled the request, on any error, or after
 * `timeoutMs`. Whether the statement was cancelled shows only in its own reply.
 */
export async function requestCancel(
  pool: PgPool,
  client: PgClient,
  timeoutMs: number,
): Promise<void> {
  const { host, port, processID, secretKey, ssl, sslNegotiation } = client as CancellableClient
  if (!pool.Client || !host || !port || !processID || !secretKey) return
  // A client that never connects: its connection knows how to, with the same encryption.
  const { connection } = new pool.Client(pool.options as never) as CancellableClient
  if (!connection) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, timeoutMs)
    const over = () => {
      clearTimeout(timer)
      resolve()
    }
    const cancel = () => connection.cancel(processID, secretKey)
    connection.on('error', over)
    connection.once('end', over)
    connection.once('sslconnect', cancel)
    connection.once('connect', () => {
      if (!ssl) cancel()
      else if (sslNegotiation !== 'direct') connection.requestSsl()
    })
    if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`)
    else connection.connect(port, host)
  })
  connection.stream.destroy()
}
