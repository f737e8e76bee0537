/** The part of node-postgres that Pawl uses, and the pools that Pawl opens with it. */

import type { Pool } from 'pg'

/** The part of a `pg.Pool` that Pawl uses; node-postgres has it from version 8.12 on. */
export interface PgPool {
  connect(): Promise<PgClient>
  on(event: 'error', listener: (error: Error) => void): unknown
  end(): Promise<void>
  options?: { max?: number | undefined }
  /** How many connections are open, and how many of them are idle. */
  totalCount?: number
  idleCount?: number
  /** The class of the pool's clients. */
  Client?: new (
    options: never,
  ) => PgClient & { connect(): Promise<unknown>; end(): Promise<void> }
}

export interface PgClient {
  query(config: object): Promise<unknown>
  release(destroy?: Error | boolean): void
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  on(event: string, listener: (...args: any[]) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: as node-postgres types its listeners
  off(event: string, listener: (...args: any[]) => void): unknown
}

/** Opens the pool for the app's transactions where the app passes a connection string. It connects when used. */
export async function openPool(connectionString: string): Promise<PgPool> {
  const pg = await import('pg')
  const options: ConstructorParameters<typeof Pool>[0] = {
    connectionString,
    application_name: 'pawl',
  }
  return new pg.default.Pool(options) as PgPool
}

/** Drops a connection at once, also one whose peer is gone. */
export function destroySocket(client: PgClient): void {
  const { connection } = client as { connection?: { stream?: { destroy?(): unknown } } }
  connection?.stream?.destroy?.()
}

/** Lets TCP check whether the peer is there, once the connection has been silent for this long. */
export function keepAlive(client: PgClient, ms: number): void {
  const { connection } = client as {
    connection?: { stream?: { setKeepAlive?(enable: boolean, ms: number): unknown } }
  }
  connection?.stream?.setKeepAlive?.(true, ms)
}

type Listener = (client: PgClient) => void

interface GivenPool extends PgPool {
  options: Record<string, unknown>
  listeners(event: string): Listener[]
  on(event: 'connect', listener: Listener): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
}

/**
 * Opens a pool like the given one (its class, its options, its clients, its `connect` listeners) for Pawl's own
 * statements. They must not wait for connections that the app holds: a handler that holds a client while it
 * records a step would wait for itself.
 * @returns null if the given pool must be shared: it has one connection only, or Pawl cannot open another like it
 */
export function openPoolLike(pool: PgPool, max: number, timeoutMs: number): PgPool | null {
  const { options, constructor: PoolClass, Client } = pool as GivenPool
  if (!options || options.max === 1) return null
  try {
    const own = new (PoolClass as new (options: object) => GivenPool)({
      ...options,
      // node-postgres hides them from enumeration.
      password: options.password,
      ssl: options.ssl,
      Client,
      max,
      min: 0,
      connectionTimeoutMillis: timeoutMs,
      idleTimeoutMillis: IDLE_MS,
      // An app that ends without stop() is not kept alive by what it does not know of.
      allowExitOnIdle: true,
      // Pawl has its own, which also cancels the statement.
      query_timeout: 0,
    })
    if (typeof own.connect !== 'function') return null
    // Those of the moment: an app may add them after it has made its Pawl.
    own.on('connect', (client) => {
      for (const listener of (pool as GivenPool).listeners('connect')) listener.call(pool, client)
    })
    return own
  } catch {
    return null
  }
}

/** How long a connection that Pawl opened stays open without use, in ms. */
const IDLE_MS = 10_000
