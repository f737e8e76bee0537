/** Runs Pawl's SQL through a pool of node-postgres, and opens transactions for the app. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Pool } from 'pg'
import { PawlError } from '../../errors/index.ts'
import { classify, type Database, isConnectionError, type Query, type Row } from './database.ts'
import { encodeArray, PgArray, type Value } from './pg-array.ts'
import { retryConflicts } from './retry-conflicts.ts'
import { Semaphore } from './semaphore.ts'
import { StaleConnections } from './stale-connections.ts'
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

/** How often a statement is sent at most, if the connection breaks each time. */
const SENDS = 3

/** The longest pause before a statement is sent again, in ms: the first time, and after doubling. */
const RESEND_MS = 20
const MAX_RESEND_MS = 1000

/** How much earlier than asked a timer may fire, in ms. */
const EARLY_MS = 2

/** The connections that are probably dead, for each pool that Pawl uses. */
const guarded = new WeakMap<PgPool, StaleConnections<PgClient>>()

/** A Database over a pool of node-postgres. */
export class NodePostgres implements Database {
  readonly #pool: PgPool
  readonly #owned: boolean
  readonly #timeoutMs: number
  readonly #stale: StaleConnections<PgClient>
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
    this.#stale = guarded.get(pool) ?? guard(pool)
  }

  query: Query = (sql, values) =>
    // The role's default isolation level may be stricter than the statements need, and so cause conflicts.
    retryConflicts(() =>
      this.#resend(async () => {
        const client = await this.#connect()
        return this.#use(client, () => this.#send(client, sql, values))
      }),
    )

  get connections(): number {
    return this.#pool.options?.max ?? 10
  }

  urgent: Query = (sql, values) => this.#resend(() => this.#sendUrgently(sql, values))

  async #sendUrgently(sql: string, values?: readonly Value[]): Promise<Row[]> {
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

  async transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    // Not the role's default: after waiting for a lock, a statement must see what the lock's holder committed.
    const client = await this.#begin('begin isolation level read committed')
    return this.#use(client, async () => {
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
    // Nobody above would try again: a step that is a transaction fails with the error.
    const client = await this.#begin(begin(isolation), Number.POSITIVE_INFINITY)
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
   * Sends a statement again if its connection broke, or could not be opened. Safe for Pawl's own statements,
   * all of which may be sent twice, and for the beginning of a transaction. What ran into the timeout is not
   * sent again.
   * @param sends how often, at most. By default, few times: whoever sends has a deadline, and goes on until
   * then if it is worth it
   */
  async #resend<T>(send: () => Promise<T>, sends = SENDS): Promise<T> {
    const deadline = performance.now() + this.#timeoutMs - EARLY_MS
    for (let sent = 1; ; sent++) {
      try {
        return await send()
      } catch (error) {
        if (!isConnectionError(error) || sent >= sends || performance.now() >= deadline) throw error
      }
      // Full jitter, so that the connections of all processes are not opened in step.
      await sleep(Math.min(RESEND_MS * 2 ** (sent - 1), MAX_RESEND_MS) * Math.random())
    }
  }

  /**
   * A connection with a transaction open. Beginning one again is safe: what was begun on a connection that
   * broke has written nothing. From here on nothing is sent again: only the journal knows what a lost
   * commit did.
   */
  #begin(sql: string, sends?: number): Promise<PgClient> {
    return this.#resend(async () => {
      const client = await this.#connect()
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
    }, sends)
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

  /** Resolves to a client that is not known to be stale; rejects on timeout. A client that arrives later is released. */
  async #connect(timeoutMs = this.#timeoutMs): Promise<PgClient> {
    const deadline = performance.now() + timeoutMs
    // It ends: each turn takes one idle connection out of the pool, and a new one is not stale.
    for (;;) {
      const client = await this.#checkOut(Math.ceil(deadline - performance.now()))
      if (!this.#stale.isStale(client)) return client
      discard(client)
    }
  }

  /** A client of the pool, or an error after the timeout; a client that comes later goes back. */
  async #checkOut(timeoutMs: number): Promise<PgClient> {
    const connecting = this.#pool.connect()
    try {
      return await inTime(timeoutMs, connecting)
    } catch (error) {
      connecting.then((client) => client.release(), ignore)
      throw error
    }
  }

  async #send(client: PgClient, text: string, values?: readonly Value[]): Promise<Row[]> {
    const sentAt = performance.now()
    let result: { rows: Row[] } | { rows: Row[] }[]
    try {
      result = (await client.query({
        text,
        // Without values node-postgres uses the simple protocol, which accepts several statements in one text.
        ...(values && { values: values.map(encode) }),
        rowMode: 'array',
        query_timeout: this.#timeoutMs,
      })) as typeof result
    } catch (error) {
      if (isConnectionError(error)) this.#stale.broke(sentAt)
      else this.#stale.answered(client)
      throw error
    }
    this.#stale.answered(client)
    return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
  }
}

/** Records from now on which connections of a pool break. */
function guard(pool: PgPool): StaleConnections<PgClient> {
  const stale = new StaleConnections<PgClient>()
  guarded.set(pool, stale)
  // The pool has already dropped an idle connection that it reports here. Without a listener, a
  // restart of Postgres would end the process.
  pool.on('error', ignore)
  const events = pool as unknown as {
    on(event: 'connect', listener: (client: PgClient) => void): unknown
  }
  events.on('connect', (client) => stale.answered(client))
  return stale
}

/** Removes a connection that no longer answers from its pool. */
function discard(client: PgClient): void {
  client.release(true)
  // An orderly end would wait for a peer that is gone, and keep the process alive meanwhile.
  const { connection } = client as { connection?: { stream?: { destroy?(): unknown } } }
  connection?.stream?.destroy?.()
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
