import type { Pool } from 'pg'
import { classify, type Database, type Query, type Row, retryConflicts } from './database.ts'
import type { IsolationLevel, TransactionHost } from './transaction-host.ts'
import { encodeArray, PgArray, type Value } from './values.ts'

/** What Pawl uses of a `pg.Pool`; any version of node-postgres from 8.12 on fits. */
export interface PgPool {
  connect(): Promise<PgClient>
  on(event: 'error', listener: (error: Error) => void): unknown
  end(): Promise<void>
  options?: { max?: number | undefined }
}

interface PgClient {
  query(config: object): Promise<unknown>
  release(destroy?: Error | boolean): void
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  on(event: string, listener: (...args: any[]) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  off(event: string, listener: (...args: any[]) => void): unknown
}

/** A pool of Pawl's own, for apps that give a connection string. */
export async function openPool(connectionString: string, timeoutMs: number): Promise<PgPool> {
  const pg = await import('pg')
  const options: ConstructorParameters<typeof Pool>[0] = {
    connectionString,
    // One connection for each kind of statement that is in flight at once, and one to listen.
    max: 5,
    connectionTimeoutMillis: timeoutMs,
    application_name: 'pawl',
  }
  return new pg.default.Pool(options) as PgPool
}

/** Pools whose idle connections may break. */
const guarded = new WeakSet<PgPool>()

/** The Database behind a node-postgres pool. */
export class NodePostgres implements Database {
  readonly #pool: PgPool
  readonly #owned: boolean
  readonly #timeoutMs: number

  constructor(pool: PgPool, timeoutMs: number, owned: boolean) {
    this.#pool = pool
    this.#timeoutMs = timeoutMs
    this.#owned = owned
    // The pool has already dropped an idle connection that it reports here. Without a listener, a
    // restart of Postgres would end the process.
    if (!guarded.has(pool)) pool.on('error', ignore)
    guarded.add(pool)
  }

  query: Query = (sql, values) =>
    // A role's default may be a stricter isolation than the statements need.
    retryConflicts(() => this.#with((client) => this.#send(client, sql, values)))

  /** Hands out the pool's clients. What the app does with one takes as long as the app wants. */
  readonly host: TransactionHost<PgClient> = {
    transaction: async (work, isolation) => {
      const client = await this.#connect()
      client.on('error', ignore) // The query that is under way reports it.
      let broken = true
      try {
        await this.#send(client, begin(isolation))
        try {
          const result = await work(client, async (text, values) => {
            const { rows } = (await client.query({ text, values })) as {
              rows: Record<string, unknown>[]
            }
            return rows
          })
          await this.#send(client, 'commit')
          broken = false
          return result
        } catch (error) {
          // The app's errors say nothing of the connection; that it can roll back does.
          await this.#send(client, 'rollback').then(() => {
            broken = false
          }, ignore)
          throw error
        }
      } finally {
        client.off('error', ignore)
        client.release(broken)
      }
    },
  }

  transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#with(async (client) => {
      // Whatever the role's default is: what waits for a lock must then see what it waited for.
      await this.#send(client, 'begin isolation level read committed')
      try {
        const result = await work((sql, values) => this.#send(client, sql, values))
        await this.#send(client, 'commit')
        return result
      } catch (error) {
        await this.#send(client, 'rollback').catch(ignore)
        throw error
      }
    })
  }

  async listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>> {
    // A connection that listens is gone for everyone else: a tiny pool must not give it away.
    if ((this.#pool.options?.max ?? 10) < 3) throw new Error('The pool is too small to listen.')
    const client = await this.#connect()
    const message = (notification: { payload?: string }) => onMessage(notification.payload ?? '')
    let open = true
    const close = async () => {
      if (!open) return
      open = false
      client.off('notification', message)
      client.release(true)
    }
    const lost = () => {
      if (open) close().then(onLost)
    }
    client.on('notification', message)
    client.on('error', lost)
    client.on('end', lost)
    try {
      await this.#send(client, `listen ${quoteIdentifier(channel)}`)
    } catch (error) {
      await close()
      throw error
    }
    return close
  }

  async close(): Promise<void> {
    if (this.#owned) await this.#pool.end()
  }

  async #with<T>(work: (client: PgClient) => Promise<T>): Promise<T> {
    const client = await this.#connect()
    client.on('error', ignore) // The query that is under way reports it.
    let failure: unknown
    try {
      return await work(client)
    } catch (error) {
      failure = error
      throw error
    } finally {
      client.off('error', ignore)
      // After anything but Postgres' own refusal the connection's state is unknown: drop it.
      const broken = failure !== undefined && classify(failure) === 'unavailable'
      client.release(broken)
    }
  }

  /** A client of the pool, or an error after the timeout; a client that comes later goes back. */
  #connect(): Promise<PgClient> {
    return new Promise((resolve, reject) => {
      let waiting = true
      const timer = setTimeout(() => {
        waiting = false
        reject(new Error(`No connection to PostgreSQL within ${this.#timeoutMs} ms.`))
      }, this.#timeoutMs)
      this.#pool.connect().then(
        (client) => {
          clearTimeout(timer)
          if (waiting) resolve(client)
          else client.release()
        },
        (error) => {
          clearTimeout(timer)
          if (waiting) reject(error)
        },
      )
    })
  }

  async #send(client: PgClient, text: string, values?: readonly Value[]): Promise<Row[]> {
    const result = (await client.query({
      text,
      // Without values node-postgres uses the simple protocol, which takes several statements.
      ...(values && { values: values.map(encode) }),
      rowMode: 'array',
      query_timeout: this.#timeoutMs,
    })) as { rows: Row[] } | { rows: Row[] }[]
    return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
  }
}

function begin(isolation: IsolationLevel | undefined): string {
  return isolation ? `begin isolation level ${isolation}` : 'begin'
}

function encode(value: Value): unknown {
  return value instanceof PgArray ? encodeArray(value) : value
}

function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

function ignore(): void {}
