/** Runs Pawl's SQL through a pool of node-postgres, and opens transactions for the app. */

import type { Pool } from 'pg'
import { PawlError } from '../../errors/index.ts'
import { classify, type Database, type Query, type Row } from './database.ts'
import { encodeArray, PgArray, type Value } from './pg-array.ts'
import { retryConflicts } from './retry-conflicts.ts'
import { Semaphore } from './semaphore.ts'
import type { IsolationLevel, RunStatement, TransactionHost } from './transaction-host.ts'

/** The part of a `pg.Pool` that Pawl uses; node-postgres has it from version 8.12 on. */
export interface PgPool {
  connect(): Promise<PgClient>
  on(event: 'error', listener: (error: Error) => void): unknown
  end(): Promise<void>
  options?: { max?: number | undefined }
  /** The class of the pool's clients. */
  Client?: new (
    options: never,
  ) => PgClient & { connect(): Promise<unknown>; end(): Promise<void> }
}

interface PgClient {
  query(config: object): Promise<unknown>
  release(destroy?: Error | boolean): void
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  on(event: string, listener: (...args: any[]) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  off(event: string, listener: (...args: any[]) => void): unknown
}

/** Opens a pool of Pawl's own, for apps that pass a connection string. */
export async function openPool(connectionString: string, timeoutMs: number): Promise<PgPool> {
  const pg = await import('pg')
  const options: ConstructorParameters<typeof Pool>[0] = {
    connectionString,
    // One connection for each kind of batched statement that can be in flight, and one that listens.
    max: 5,
    connectionTimeoutMillis: timeoutMs,
    application_name: 'pawl',
  }
  return new pg.default.Pool(options) as PgPool
}

/** How many connections of the pool transactions of the app leave free for Pawl's statements. */
const RESERVED_CONNECTIONS = 2

/** How long an urgent statement waits for a connection of the pool, in ms. Then it opens its own. */
const URGENT_CONNECT_MS = 250

/** Pools that have an error listener already. */
const poolsWithListener = new WeakSet<PgPool>()

/** A Database over a pool of node-postgres. */
export class NodePostgres implements Database {
  readonly #pool: PgPool
  readonly #owned: boolean
  readonly #timeoutMs: number
  /**
   * Limits the transactions of the app that are open at once. The handler of a whole-request transaction may
   * record steps through a second connection. Without the limit, such transactions could take all connections
   * and wait for a second one for ever.
   */
  readonly #slots: Semaphore

  constructor(pool: PgPool, timeoutMs: number, owned: boolean) {
    this.#pool = pool
    this.#timeoutMs = timeoutMs
    this.#owned = owned
    this.#slots = new Semaphore(Math.max(1, this.connections - RESERVED_CONNECTIONS))
    // The pool reports an idle connection that broke, which it has dropped already. Without a listener, the
    // 'error' event of a restart of Postgres would end the process.
    if (!poolsWithListener.has(pool)) pool.on('error', ignore)
    poolsWithListener.add(pool)
  }

  query: Query = (sql, values) =>
    // The role's default isolation level may be stricter than the statements need, and so cause conflicts.
    retryConflicts(() => this.#with((client) => this.#send(client, sql, values)))

  get connections(): number {
    return this.#pool.options?.max ?? 10
  }

  urgent: Query = async (sql, values) => {
    const client = await this.#connect(URGENT_CONNECT_MS).catch(() => null)
    if (client) return this.#use(client, () => this.#send(client, sql, values))
    const { Client, options } = this.#pool
    if (!Client) return this.query(sql, values)
    const own = new Client(options as never)
    own.on('error', ignore) // The query that is under way reports it.
    try {
      await inTime(this.#timeoutMs, own.connect())
      return await this.#send(own, sql, values)
    } finally {
      own.end().catch(ignore)
    }
  }

  /** Passes the pool's clients to the app. The app's transactions have no timeout. */
  readonly host: TransactionHost<PgClient> = {
    transaction: async (work, isolation) => {
      const release = await this.#slots.acquire(this.#timeoutMs)
      if (!release) throw new Error(`No connection to spare within ${this.#timeoutMs} ms.`)
      try {
        return await this.#lend(work, isolation)
      } finally {
        release()
      }
    },
  }

  transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#with(async (client) => {
      // Not the role's default: after waiting for a lock, a statement must see what the lock's holder committed.
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
    // A listening connection cannot be used for anything else, and a small pool cannot spare one.
    if (this.connections < 3) throw new Error('The pool is too small to listen.')
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

  async #lend<T>(
    work: (tx: PgClient, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T> {
    const client = await this.#connect()
    client.on('error', ignore) // The query that is under way reports it.
    let broken = true
    try {
      await this.#send(client, begin(isolation))
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

  async #with<T>(work: (client: PgClient) => Promise<T>): Promise<T> {
    const client = await this.#connect()
    return this.#use(client, () => work(client))
  }

  async #use<T>(client: PgClient, work: () => Promise<T>): Promise<T> {
    client.on('error', ignore) // The query that is under way reports it.
    let failure: unknown
    try {
      return await work()
    } catch (error) {
      failure = error
      throw error
    } finally {
      client.off('error', ignore)
      // Unless Postgres itself refused the statement, the connection's state is unknown: drop it.
      const broken = failure !== undefined && classify(failure) === 'unavailable'
      client.release(broken)
    }
  }

  /** Checks the reply: Postgres answers the commit of an aborted transaction with ROLLBACK, not with an error. */
  async #commit(client: PgClient): Promise<void> {
    const { command } = (await client.query({
      text: 'commit',
      query_timeout: this.#timeoutMs,
    })) as {
      command: string
    }
    if (command === 'COMMIT') return
    throw new PawlError(
      'transaction-aborted',
      'PostgreSQL rolled the transaction back, because one of its statements had failed.',
      'Await every statement of a transaction, and do not catch its errors.',
    )
  }

  /** Resolves to a client of the pool; rejects on timeout. A client that arrives later is released. */
  async #connect(timeoutMs = this.#timeoutMs): Promise<PgClient> {
    const connecting = this.#pool.connect()
    try {
      return await inTime(timeoutMs, connecting)
    } catch (error) {
      connecting.then((client) => client.release(), ignore)
      throw error
    }
  }

  async #send(client: PgClient, text: string, values?: readonly Value[]): Promise<Row[]> {
    const result = (await client.query({
      text,
      // Without values node-postgres uses the simple protocol, which accepts several statements in one text.
      ...(values && { values: values.map(encode) }),
      rowMode: 'array',
      query_timeout: this.#timeoutMs,
    })) as { rows: Row[] } | { rows: Row[] }[]
    return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
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

/** Resolves to the promise's value; rejects on timeout. */
async function inTime<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`No connection to PostgreSQL within ${ms} ms.`))
    }, ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
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
