/** The few connections that Pawl's statements run on: counted, also while a statement may still run on them. */

import { setTimeout as sleep } from 'node:timers/promises'
import { requestCancel } from './cancel-request.ts'
import { isConnectionError, type Row } from './database.ts'
import { inTime, LATE } from './in-time.ts'
import { encodeArray, PgArray, type Value } from './pg-array.ts'
import { destroySocket, openPoolLike, type PgClient, type PgPool } from './pg-pool.ts'
import { Semaphore } from './semaphore.ts'
import { SharedListener } from './shared-listener.ts'
import { StaleConnections } from './stale-connections.ts'
import { StatementError } from './statement-error.ts'

/** How many of its own connections Pawl's statements cannot take: one listens, and one is for heartbeats. */
const RESERVED = 2

/** How long a statement has to end after it was asked to, in ms. Then its connection is dropped. */
const CANCEL_MS = 2000

/** How long a dropped connection counts as taken, in ms, unless its backend is seen to have ended before. */
const IN_DOUBT_MS = 60_000

/** The pauses between looks at backends in doubt, in ms: the first, and the longest after doubling. */
const LOOK_MS = 50
const MAX_LOOK_MS = 1000

/** How long an urgent statement waits for a connection of a shared pool, in ms. Then it opens its own. */
const URGENT_CONNECT_MS = 250

/** The connections beside each pool that an app has given, by their number. */
const opened = new WeakMap<PgPool, Map<number, Connections>>()

/** A connection that work has for itself. */
export interface CheckedOut {
  client: PgClient
  /** Gives the connection back, once; `broken` closes it. */
  giveBack(broken: boolean): void
}

/**
 * Runs statements on connections of Pawl's own, or of a pool that must be shared.
 *
 * A statement that does not end in time is cancelled, and its place stays taken until PostgreSQL is known to have
 * ended it. Else a database in which every statement waits would collect ever more of them.
 */
export class Connections {
  readonly #pool: PgPool
  readonly #isShared: boolean
  readonly #places: Semaphore
  readonly #urgentPlace = new Semaphore(1)
  readonly #stale: StaleConnections<PgClient>
  /** The backends that may still run a statement, by process id: when that began to count, and whom to tell. */
  readonly #inDoubt = new Map<number, { since: number; tell: () => void }>()
  #users = 0
  #forget: () => void = () => {}

  /** How many connections there are at most. */
  readonly size: number
  /** Rejects if a shared pool cannot spare a connection. */
  readonly listener: SharedListener<CheckedOut>

  private constructor(pool: PgPool, isShared: boolean, size: number, timeoutMs: number) {
    this.#pool = pool
    this.#isShared = isShared
    this.size = size
    this.#places = new Semaphore(isShared ? size : size - RESERVED)
    this.#stale = StaleConnections.of(pool)
    const deadline = () => performance.now() + timeoutMs
    this.listener = new SharedListener(
      async () => {
        if (size < 3) throw new Error('The pool is too small to listen.')
        return this.#checkOut(deadline(), ignore)
      },
      (connection, sql) => this.send(connection, sql, undefined, deadline()),
    )
  }

  /**
   * The connections beside an app's pool. All instances of Pawl that were given this pool share them.
   * @param size how many, at most; at least 3. A pool that must be shared has its own size
   * @param timeoutMs how long opening one may take, in ms
   */
  static of(pool: PgPool, size: number, timeoutMs: number): Connections {
    const bySize = opened.get(pool) ?? new Map<number, Connections>()
    opened.set(pool, bySize)
    let connections = bySize.get(size)
    if (!connections) {
      const own = openPoolLike(pool, size, timeoutMs)
      connections = own
        ? new Connections(own, false, size, timeoutMs)
        : new Connections(pool, true, pool.options?.max ?? 10, timeoutMs)
      connections.#forget = () => bySize.delete(size)
      bySize.set(size, connections)
    }
    connections.#users++
    return connections
  }

  /** Closes the connections, unless another instance of Pawl uses them too. A shared pool stays open. */
  async close(): Promise<void> {
    if (--this.#users > 0) return
    this.#forget()
    if (!this.#isShared) await this.#pool.end()
  }

  /**
   * Runs `work` on a connection. What it sends, it sends with `send`.
   * @param deadline when the wait for a connection ends, by performance.now()
   * @throws StatementError if no connection is to be had
   */
  async use<T>(work: (connection: CheckedOut) => Promise<T>, deadline: number): Promise<T> {
    const free = await this.#places.acquire(Math.max(1, deadline - performance.now()))
    if (!free) throw new StatementError('busy', this.#busyMessage())
    const connection = await this.#checkOut(deadline, free)
    return this.#run(connection, work, free)
  }

  /** Like `use`, but does not wait for other statements. What fails is not waited for: it must be harmless. */
  async useUrgently<T>(work: (connection: CheckedOut) => Promise<T>, deadline: number): Promise<T> {
    if (this.#isShared) return this.#useOfSharedPool(work, deadline)
    const free = await this.#urgentPlace.acquire(Math.max(1, deadline - performance.now()))
    if (!free) throw new StatementError('busy', this.#busyMessage())
    try {
      const connection = await this.#checkOut(deadline, ignore)
      return await this.#run(connection, work, ignore)
    } finally {
      free()
    }
  }

  /**
   * Sends a statement.
   * @param deadline when the statement is cancelled, by performance.now()
   * @param signal cancels the statement before
   * @throws StatementError at the deadline, or if the connection breaks; and PostgreSQL's own errors
   */
  async send(
    connection: CheckedOut,
    text: string,
    values: readonly Value[] | undefined,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<Row[]> {
    const { client, giveBack } = connection
    const sentAt = performance.now()
    const reply = client.query({
      text,
      // Without values node-postgres uses the simple protocol, which accepts several statements in one text.
      ...(values && { values: values.map(encode) }),
      rowMode: 'array',
    }) as Promise<{ rows: Row[] } | { rows: Row[] }[]>
    try {
      const result = await inTime(Math.max(1, deadline - sentAt), reply, signal)
      this.#stale.answered(client)
      return Array.isArray(result) ? (result.at(-1)?.rows ?? []) : result.rows
    } catch (error) {
      if (error === LATE) {
        if (!signal?.aborted) this.#stale.broke(sentAt)
        const ms = Math.round(performance.now() - sentAt)
        const ended = this.#cancel(connection, reply)
        const message = signal?.aborted
          ? 'the statement was cancelled'
          : `no reply to a statement within ${ms} ms`
        throw new StatementError('timeout', message, ended)
      }
      if (!isConnectionError(error)) {
        this.#stale.answered(client)
        throw error
      }
      this.#stale.broke(sentAt)
      giveBack(true)
      const ended = this.#untilEnded(client)
      throw new StatementError('connection', (error as Error).message, ended, error)
    }
  }

  async #run<T>(
    connection: CheckedOut,
    work: (connection: CheckedOut) => Promise<T>,
    free: () => void,
  ): Promise<T> {
    try {
      const result = await work(connection)
      connection.giveBack(false)
      free()
      return result
    } catch (error) {
      const isRunning = error instanceof StatementError && error.kind === 'timeout'
      if (isRunning) error.ended.then(free)
      else {
        connection.giveBack(isConnectionError(error))
        free()
      }
      throw error
    }
  }

  /** A connection that is not known to be stale. Rejects at the deadline, and then calls `free` once it is over. */
  async #checkOut(deadline: number, free: () => void): Promise<CheckedOut> {
    // It ends: each turn takes one idle connection out of the pool, and a new one is not stale.
    for (;;) {
      const connecting = this.#pool.connect()
      let client: PgClient
      try {
        client = await inTime(Math.max(1, deadline - performance.now()), connecting)
      } catch (error) {
        connecting.then((client) => client.release(), ignore).then(free)
        throw error === LATE ? new StatementError('busy', this.#noConnectionMessage()) : error
      }
      if (this.#stale.isStale(client)) {
        client.release(true)
        // An orderly end would wait for a peer that is gone, and keep the process alive meanwhile.
        destroySocket(client)
      } else {
        client.on('error', ignore) // The statement that is under way reports it.
        return { client, giveBack: once((broken) => giveBack(client, broken)) }
      }
    }
  }

  async #useOfSharedPool<T>(
    work: (connection: CheckedOut) => Promise<T>,
    deadline: number,
  ): Promise<T> {
    const soon = performance.now() + URGENT_CONNECT_MS
    const connection = await this.#checkOut(Math.min(soon, deadline), ignore).catch(() => null)
    if (connection) return this.#run(connection, work, ignore)
    const { Client, options } = this.#pool
    if (!Client) return this.use(work, deadline)
    const own = new Client(options as never)
    own.on('error', ignore)
    try {
      await inTime(Math.max(1, deadline - performance.now()), own.connect())
      return await work({ client: own, giveBack: ignore })
    } finally {
      own.end().catch(ignore)
    }
  }

  /** Ends a statement whose caller has given up. Resolves once it has ended, or nothing more can be done about it. */
  async #cancel({ client, giveBack }: CheckedOut, reply: Promise<unknown>): Promise<void> {
    const settled = reply.then(
      () => true,
      (error) => !isConnectionError(error),
    )
    const request = requestCancel(this.#pool, client, CANCEL_MS).catch(ignore)
    const ended = await Promise.race([settled, sleep(CANCEL_MS, false, { ref: false })])
    if (!ended) destroySocket(client)
    // Closed in any case: a cancel request that arrives late would hit the next statement on it.
    giveBack(true)
    await request
    if (!ended) await this.#untilEnded(client)
  }

  /** Resolves once the backend of a lost connection no longer runs anything, or after a minute. */
  #untilEnded(client: PgClient): Promise<void> {
    const { processID } = client as { processID?: number | null }
    if (!processID) return Promise.resolve()
    return new Promise((resolve) => {
      const before = this.#inDoubt.get(processID)
      const tell = () => {
        before?.tell()
        resolve()
      }
      this.#inDoubt.set(processID, { since: performance.now(), tell })
      if (this.#inDoubt.size === 1) this.#lookAtBackends()
    })
  }

  async #lookAtBackends(): Promise<void> {
    for (let pause = LOOK_MS; this.#inDoubt.size > 0; pause = Math.min(pause * 2, MAX_LOOK_MS)) {
      await sleep(pause, undefined, { ref: false })
      const busy = await this.#busyBackends([...this.#inDoubt.keys()]).catch(() => null)
      for (const [processId, { since, tell }] of this.#inDoubt) {
        const isKnown = busy !== null && !busy.has(processId)
        if (!isKnown && performance.now() - since < IN_DOUBT_MS) continue
        this.#inDoubt.delete(processId)
        tell()
      }
    }
  }

  /** Which of these backends run something. Behind a pooler the ids are its own, and mostly none is found. */
  async #busyBackends(processIds: number[]): Promise<Set<number>> {
    const sql = `select pid from pg_catalog.pg_stat_activity
      where pid = any ($1::int4[]) and state is distinct from 'idle'`
    const deadline = performance.now() + CANCEL_MS
    const rows = await this.useUrgently(
      (connection) => this.send(connection, sql, [new PgArray('int4', processIds)], deadline),
      deadline,
    )
    return new Set(rows.map(([processId]) => processId as number))
  }

  #busyMessage(): string {
    return this.#isShared
      ? this.#noConnectionMessage()
      : `all connections that Pawl has for its statements (${this.size - RESERVED}) are busy`
  }

  #noConnectionMessage(): string {
    const { totalCount, idleCount } = this.#pool
    const isFull = this.#isShared && totalCount === this.size && idleCount === 0
    return isFull
      ? `${totalCount} of ${this.size} connections of the app's pool are in use`
      : 'no connection was opened in time'
  }
}

function giveBack(client: PgClient, broken: boolean): void {
  client.off('error', ignore)
  client.release(broken)
}

function once(action: (broken: boolean) => void): (broken: boolean) => void {
  let done = false
  return (broken) => {
    if (!done) action(broken)
    done = true
  }
}

function encode(value: Value): unknown {
  return value instanceof PgArray ? encodeArray(value) : value
}

function ignore(): void {}
