/** Runs Pawl's SQL with node-postgres: its own statements on connections of its own, the app's on the app's pool. */

import { AppTransactions } from './app-transactions.ts'
import { type CheckedOut, Connections } from './connections.ts'
import type { Database, Query, Row, Session } from './database.ts'
import type { Value } from './pg-array.ts'
import { keepAlive, type PgClient, type PgPool } from './pg-pool.ts'
import { resend, SENDS } from './resend.ts'
import { retryConflicts } from './retry-conflicts.ts'
import { StatementError } from './statement-error.ts'
import type { TransactionHost } from './transaction-host.ts'

/** How many connections of its own Pawl opens beside the app's pool, if the app does not say. */
export const MAX_CONNECTIONS = 5

/** How long the connection of a session is silent before TCP checks whether the peer is there, in ms. */
const KEEP_ALIVE_MS = 30_000

/** A Database over a pool of node-postgres. */
export class NodePostgres implements Database {
  readonly #pool: PgPool
  readonly #isOwned: boolean
  readonly timeoutMs: number
  readonly #connections: Connections
  readonly host: TransactionHost<PgClient>

  /**
   * @param timeoutMs how long a statement may take, with the wait for its connection, in ms
   * @param isOwned whether `close` ends the pool
   */
  constructor(
    pool: PgPool,
    timeoutMs: number,
    isOwned: boolean,
    maxConnections: number = MAX_CONNECTIONS,
  ) {
    this.#pool = pool
    this.timeoutMs = timeoutMs
    this.#isOwned = isOwned
    this.#connections = Connections.of(pool, maxConnections, timeoutMs)
    this.host = new AppTransactions(pool, timeoutMs)
  }

  query: Query = (sql, values) =>
    // The role's default isolation level may be stricter than the statements need, and so cause conflicts.
    retryConflicts(() => this.#send('use', sql, values))

  urgent: Query = (sql, values) => this.#send('useUrgently', sql, values)

  get connections(): number {
    return this.#connections.size
  }

  #send(how: 'use' | 'useUrgently', sql: string, values?: readonly Value[]): Promise<Row[]> {
    const deadline = this.#deadline()
    return resend(
      () =>
        this.#connections[how](
          (connection) => this.#connections.send(connection, sql, values, deadline),
          deadline,
        ),
      deadline,
    )
  }

  async transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    const send = (connection: CheckedOut, sql: string, values?: readonly Value[]) =>
      this.#connections.send(connection, sql, values, this.#deadline())
    const deadline = this.#deadline()
    let begun = false
    const run = (connection: CheckedOut) =>
      inTransaction(
        (sql, values) => send(connection, sql, values),
        work,
        () => {
          begun = true
        },
      )
    return resend(
      () => this.#connections.use(run, deadline),
      deadline,
      (sent) => !begun && sent < SENDS,
    )
  }

  async session<T>(work: (session: Session) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const deadline = this.#deadline()
    let begun = false
    const run = async (connection: CheckedOut): Promise<T> => {
      const send: Query = (sql, values) =>
        this.#connections.send(connection, sql, values, Number.POSITIVE_INFINITY, signal)
      let mayBeChanged = false
      const query: Query = (sql, values) => {
        mayBeChanged = true
        return send(sql, values)
      }
      // Nothing is sent for as long as a statement runs, and nothing else would notice that the peer is gone.
      keepAlive(connection.client, KEEP_ALIVE_MS)
      try {
        const [row] = await send('select pg_catalog.pg_backend_pid()')
        // A pooler answers for its backends with a process id of its own.
        const isDirect = (connection.client as { processID?: unknown }).processID === row?.[0]
        begun = true
        const transaction: Session['transaction'] = (work) => inTransaction(send, work)
        return await work({ query, transaction, isDirect })
      } finally {
        // Closed: settings that are changed outside a transaction must not outlive the session.
        if (mayBeChanged) connection.giveBack(true)
      }
    }
    try {
      return await resend(
        () => this.#connections.use(run, deadline),
        deadline,
        (sent) => !begun && sent < SENDS,
      )
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    }
  }

  listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>> {
    return this.#connections.listener.listen(channel, onMessage, onLost)
  }

  async close(): Promise<void> {
    await this.#connections.close()
    if (this.#isOwned) await this.#pool.end()
  }

  #deadline(): number {
    return performance.now() + this.timeoutMs
  }
}

/** @param onBegun called once the transaction has begun */
async function inTransaction<T>(
  query: Query,
  work: (query: Query) => Promise<T>,
  onBegun: () => void = () => {},
): Promise<T> {
  // Not the role's default: after waiting for a lock, a statement must see what the lock's holder committed.
  await query('begin isolation level read committed')
  onBegun()
  try {
    const result = await work(query)
    await query('commit')
    return result
  } catch (error) {
    // A connection that is lost, or still busy, is closed: that ends the transaction.
    if (!(error instanceof StatementError)) await query('rollback').catch(() => {})
    throw error
  }
}
