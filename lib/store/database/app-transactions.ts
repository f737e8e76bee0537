/** Runs transactions of the app on its own pool of node-postgres. */

import { PawlError } from '../../errors/index.ts'
import { isConnectionError } from './database.ts'
import { inTime, LATE } from './in-time.ts'
import { destroySocket, type PgClient, type PgPool } from './pg-pool.ts'
import { resend } from './resend.ts'
import { StaleConnections } from './stale-connections.ts'
import type { IsolationLevel, RunStatement, TransactionHost } from './transaction-host.ts'

/** Passes the pool's clients to the app. Opening a transaction and ending it take a time; what is in it does not. */
export class AppTransactions implements TransactionHost<PgClient> {
  readonly #pool: PgPool
  readonly #timeoutMs: number
  readonly #stale: StaleConnections<PgClient>

  constructor(pool: PgPool, timeoutMs: number) {
    this.#pool = pool
    this.#timeoutMs = timeoutMs
    this.#stale = StaleConnections.of(pool)
  }

  async transaction<T>(
    work: (tx: PgClient, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T> {
    const client = await this.#begin(isolation ? `begin isolation level ${isolation}` : 'begin')
    client.on('error', ignore) // The query that is under way reports it.
    let broken = true
    try {
      try {
        const result = await work(unreleasable(client), async (text, values) => {
          const { rows } = (await client.query({ text, values })) as {
            rows: Record<string, unknown>[]
          }
          return rows
        })
        await this.#commit(client)
        broken = false
        return result
      } catch (error) {
        // An error of the app does not tell whether the connection works; a successful rollback does.
        await this.#send(client, 'rollback').then(() => {
          broken = false
        }, ignore)
        throw error
      }
    } finally {
      client.off('error', ignore)
      client.release(broken)
    }
  }

  /**
   * A connection with a transaction open. Beginning one again is safe: what was begun on a connection that
   * broke has written nothing. From here on nothing is sent again: only the journal knows what a lost
   * commit did. It is tried for as long as there is time, since nobody above would try again.
   */
  #begin(sql: string): Promise<PgClient> {
    const deadline = performance.now() + this.#timeoutMs
    return resend(
      async () => {
        const client = await this.#checkOut(deadline)
        client.on('error', ignore)
        try {
          await this.#send(client, sql)
        } catch (error) {
          client.off('error', ignore)
          client.release(true)
          throw error
        }
        client.off('error', ignore)
        return client
      },
      deadline,
      () => true,
    )
  }

  /** A client that is not known to be stale; a client that comes after the deadline goes back. */
  async #checkOut(deadline: number): Promise<PgClient> {
    // It ends: each turn takes one idle connection out of the pool, and a new one is not stale.
    for (;;) {
      const connecting = this.#pool.connect()
      let client: PgClient
      try {
        client = await inTime(Math.max(1, deadline - performance.now()), connecting)
      } catch (error) {
        connecting.then((client) => client.release(), ignore)
        throw error === LATE ? this.#noConnection() : error
      }
      if (!this.#stale.isStale(client)) return client
      client.release(true)
      // An orderly end would wait for a peer that is gone, and keep the process alive meanwhile.
      destroySocket(client)
    }
  }

  #noConnection(): PawlError {
    const { totalCount, idleCount, options } = this.#pool
    const max = options?.max ?? 10
    const isFull = totalCount !== undefined && totalCount >= max && idleCount === 0
    return isFull
      ? new PawlError(
          'pool-exhausted',
          `No connection of the pool was free for a transaction within ${this.#timeoutMs} ms: ${totalCount} of ${max} are in use.`,
          'Give the pool more connections, or release those that the app holds.',
        )
      : new PawlError(
          'store-unavailable',
          `PostgreSQL cannot be reached: no connection was opened within ${this.#timeoutMs} ms.`,
          'Pawl continues by itself as soon as PostgreSQL answers; a client should retry with the same key.',
        )
  }

  /** Checks the reply: PostgreSQL answers the commit of an aborted transaction with ROLLBACK, not with an error. */
  async #commit(client: PgClient): Promise<void> {
    const { command } = (await this.#send(client, 'commit')) as { command: string }
    if (command === 'COMMIT') return
    throw new PawlError(
      'transaction-aborted',
      'PostgreSQL rolled the transaction back, because one of its statements had failed.',
      'Await every statement of a transaction, and do not catch its errors.',
    )
  }

  async #send(client: PgClient, text: string): Promise<unknown> {
    const sentAt = performance.now()
    try {
      const result = await client.query({ text, query_timeout: this.#timeoutMs })
      this.#stale.answered(client)
      return result
    } catch (error) {
      if (isConnectionError(error)) this.#stale.broke(sentAt)
      else this.#stale.answered(client)
      throw error
    }
  }
}

/** A proxy of a transaction's client whose `release` throws: Pawl releases the client when the transaction ends. */
function unreleasable(client: PgClient): PgClient {
  const release = () => {
    throw new PawlError(
      'no-transaction',
      'The client of a transaction was released.',
      'Pawl returns the client to the pool when the transaction ends; do not call release().',
    )
  }
  return new Proxy(client, {
    get: (target, name) => (name === 'release' ? release : Reflect.get(target, name, target)),
  })
}

function ignore(): void {}
