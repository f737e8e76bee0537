import { setTimeout as sleep } from 'node:timers/promises'
import type { Pool } from 'pg'
import { PawlError } from '../../errors/index.ts'
import {
  classify,
  type Database,
  isBroken,
  type Query,
  type Row,
  retryConflicts,
} from './database.ts'
import { Slots } from './slots.ts'
import { StaleConnections } from './stale-connections.ts'
import type { IsolationLevel, RunStatement, TransactionHost } from './transaction-host.ts'
import { encodeArray, PgArray, type Value } from './values.ts'

/** What Pawl uses of a `pg.Pool`; any version of node-postgres from 8.12 on fits. */
export interface PgPool {
  connect(): Promise<PgClient>
  on(event: 'error', listener: (error: Error) => void): unknown
  end(): Promise<void>
  options?: { max?: number | undefined }
  /** What it makes its clients of. */
  Client?: new (
    options: never,
  ) => PgClient & { connect(): Promise<unknown>; end(): Promise<void> }
}

interface PgClient {
  /** Of node-postgres in JavaScript; its pool ends connections in the same way. */
  connection?: { stream?: { destroy?(): unknown } }
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

/** The connections of a pool that transactions of the app leave to Pawl's statements. */
const RESERVED = 2

/** How long what is urgent waits for the pool, in ms. */
const PATIENCE_MS = 250

/** How often a statement is sent if connections break under it: the second time on a new connection. */
const SENDS = 3

/** The longest pause before it is sent again, in ms: at first, and after it has doubled a few times. */
const RESEND_MS = 20
const MAX_RESEND_MS = 1000

/** Timers may be this early, in ms. */
const EARLY_MS = 2

/** Pools whose idle connections may break, and what is known of those. */
const guarded = new WeakMap<PgPool, StaleConnections<PgClient>>()

/** The Database behind a node-postgres pool. */
export class NodePostgres implements Database {
  readonly #pool: PgPool
  readonly #owned: boolean
  readonly #timeoutMs: number
  readonly #stale: StaleConnections<PgClient>
  /**
   * Of transactions of the app. While one that is a whole request is open, its handler may record steps
   * through a second connection: if each had its first, none would get its second.
   */
  readonly #slots: Slots

  constructor(pool: PgPool, timeoutMs: number, owned: boolean) {
    this.#pool = pool
    this.#timeoutMs = timeoutMs
    this.#owned = owned
    this.#slots = new Slots(Math.max(1, this.connections - RESERVED))
    this.#stale = guarded.get(pool) ?? guard(pool)
  }

  query: Query = (sql, values) =>
    // A role's default may be a stricter isolation than the statements need.
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
    const client = await this.#connect(PATIENCE_MS).catch(() => null)
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

  /** Hands out the pool's clients. What the app does with one takes as long as the app wants. */
  readonly host: TransactionHost<PgClient> = {
    transaction: async (work, isolation) => {
      const giveBack = await this.#slots.take(this.#timeoutMs)
      if (!giveBack) throw new Error(`No connection to spare within ${this.#timeoutMs} ms.`)
      try {
        return await this.#lend(work, isolation)
      } finally {
        giveBack()
      }
    },
  }

  async transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    // Whatever the role's default is: what waits for a lock must then see what it waited for.
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
    // A connection that listens is gone for everyone else: a tiny pool must not give it away.
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
        if (!isBroken(error) || sent >= sends || performance.now() >= deadline) throw error
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
      // After anything but Postgres' own refusal the connection's state is unknown: drop it.
      const broken = failure !== undefined && classify(failure) === 'unavailable'
      client.release(broken)
    }
  }

  /** Postgres answers the commit of a transaction that it has aborted with a rollback, and no error. */
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
      'PostgreSQL has rolled the transaction back, since one of its statements had failed.',
      'Wait for every statement of a transaction, and let its errors out.',
    )
  }

  /** A client of the pool that is not known to be stale, or an error after the timeout. */
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
        // Without values node-postgres uses the simple protocol, which takes several statements.
        ...(values && { values: values.map(encode) }),
        rowMode: 'array',
        query_timeout: this.#timeoutMs,
      })) as typeof result
    } catch (error) {
      if (isBroken(error)) this.#stale.broke(sentAt)
      else this.#stale.answered(client)
      throw error
    }
    this.#stale.answered(client)
    return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
  }
}

/** Begins to note which connections of a pool break. */
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

/** Takes a connection out of its pool that nobody may answer on any more. */
function discard(client: PgClient): void {
  client.release(true)
  // Saying goodbye in order would wait for a peer that is gone, and keep the process alive meanwhile.
  client.connection?.stream?.destroy?.()
}

/** The client of a transaction: the pool gets it back at the end, and not before. */
function unreleasable(client: PgClient): PgClient {
  const release = () => {
    throw new PawlError(
      'no-transaction',
      'The client of a transaction was released.',
      'It goes back to the pool by itself when the transaction ends.',
    )
  }
  return new Proxy(client, {
    get: (target, name) => (name === 'release' ? release : Reflect.get(target, name, target)),
  })
}

/** @throws an error if it takes longer */
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
