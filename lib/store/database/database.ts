import { isConflict, type TransactionHost } from './transaction-host.ts'
import type { Value } from './values.ts'

/** A row as an array of column values, in the order of the select list. */
export type Row = readonly unknown[]

/**
 * Runs one statement. It may be sent more than once, where a connection broke or it lost against concurrent
 * ones: a driver cannot know whether a lost reply meant a lost commit.
 */
export type Query = (sql: string, values?: readonly Value[]) => Promise<Row[]>

/**
 * All that the store needs of a database: run this SQL. Each implementation sends statements
 * unnamed, so that no plan outlives the data it was made for and PgBouncer's transaction mode works.
 */
export interface Database {
  query: Query
  /** The same for what cannot wait until the app leaves a connection to spare. */
  urgent: Query
  /** How many statements and transactions it can run at a time. */
  readonly connections: number
  /** Opens transactions for the app, with the driver's own client. */
  readonly host: TransactionHost<unknown>
  /** Stands between Pawl and whatever opens a transaction, `host` included. Default: nothing does. */
  enlist?<Tx>(host: TransactionHost<Tx>): TransactionHost<Tx>
  /** Runs `work` in one transaction on one connection. */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>
  /**
   * Calls `onMessage` for each notification on `channel` until the returned function is called.
   * `onLost` is called once if the connection goes away. Rejects where listening is impossible.
   */
  listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>>
  /** Closes the connections that Pawl opened; those of a pool that the app gave stay open. */
  close(): Promise<void>
}

/** What a failed statement means for whoever sent it. */
export type Failure =
  /** Nothing reached Postgres, or Postgres cannot serve now: the same statement may succeed later. */
  | 'unavailable'
  /** A serialization failure or a deadlock: the same statement will succeed at once. */
  | 'conflict'
  /** Postgres read the statement and refused it: sending it again changes nothing. */
  | 'refused'

// SQLSTATE classes (PostgreSQL documentation, appendix A) after which trying again makes sense:
// connection exception, insufficient resources, operator intervention, system error, invalid
// authorization (a password rotation in progress), lock_timeout, a server that is read-only after a failover, and
// a session that a timeout of the server has ended.
const UNAVAILABLE = /^(08|53|57|58|28|25006|25P0[34]|55P03)/
const CONFLICT = /^40/
const STATE = /^[0-9A-Z]{5}$/

/** Sorts an error of a driver into what to do about it. */
export function classify(error: unknown): Failure {
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown }
  // Only Postgres itself sends five-character SQLSTATEs; everything else is the way to it. Errors of
  // the operating system can look like one (EPIPE).
  if (typeof code !== 'string' || !STATE.test(code) || syscall) return 'unavailable'
  if (CONFLICT.test(code)) return 'conflict'
  return UNAVAILABLE.test(code) ? 'unavailable' : 'refused'
}

// Connection exceptions, and a server that ends the session (administrator, crash, idle session timeout).
const BROKEN = /^(08|57P0[125])/

/** Whether the connection failed rather than the statement, so that another connection may carry it. */
export function isBroken(error: unknown): boolean {
  if (classify(error) !== 'unavailable') return false
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown }
  const isState = typeof code === 'string' && STATE.test(code) && !syscall
  return !isState || BROKEN.test(code)
}

/** Runs work again that lost against concurrent work. */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries >= 5 || !(classify(error) === 'conflict' || isConflict(error))) throw error
    }
  }
}
