/** Runs Pawl's SQL with node-postgres: its own statements on connections of its own, the app's on the app's pool. */

import { AppTransactions } from './app-transactions.ts'
import { type CheckedOut, Connections } from './connections.ts'
import type { Database, Query, Row } from './database.ts'
import type { Value } from './pg-array.ts'
import type { PgClient, PgPool } from './pg-pool.ts'
import { resend, SENDS } from './resend.ts'
import { retryConflicts } from './retry-conflicts.ts'
import { StatementError } from './statement-error.ts'
import type { TransactionHost } from './transaction-host.ts'

/** How many connections of its own Pawl opens beside the app's pool, if the app does not say. */
export const MAX_CONNECTIONS = 5

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
    const run = async (connection: CheckedOut): Promise<T> => {
      // Not the role's default: after waiting for a lock, a statement must see what the lock's holder committed.
      await send(connection, 'begin isolation level read committed')
      begun = true
      try {
        const result = await work((sql, values) => send(connection, sql, values))
        await send(connection, 'commit')
        return result
      } catch (error) {
        // A connection that is lost, or still busy, is closed: that ends the transaction.
        if (!(error instanceof StatementError)) await send(connection, 'rollback').catch(() => {})
        throw error
      }
    }
    return resend(
      () => this.#connections.use(run, deadline),
      deadline,
      (sent) => !begun && sent < SENDS,
    )
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
