/** The interface that Pawl's stores need of a database, and the classification of its errors. */

import type { Value } from './pg-array.ts'
import { StatementError } from './statement-error.ts'
import type { TransactionHost } from './transaction-host.ts'

/** A row as an array of column values, in the order of the select list. */
export type Row = readonly unknown[]

/** Runs one statement. */
export type Query = (sql: string, values?: readonly Value[]) => Promise<Row[]>

/** A connection on which statements have no time limit. */
export interface Session {
  query: Query
  /** Runs `work` in one transaction on the connection. */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>
  /**
   * Whether SET outside a transaction takes effect on the statements that follow, and on no others. False for a
   * connection through a pooler, and for one that is shared with the app.
   */
  readonly isDirect: boolean
}

/**
 * A database that runs Pawl's SQL. Each implementation sends unnamed statements, so that no cached plan
 * outlives the data it was made for, and so that PgBouncer's transaction mode works.
 */
export interface Database {
  query: Query
  /** Like `query`, but does not wait until the app leaves a connection free: for heartbeats. */
  urgent: Query
  /** How long an operation may take, with the wait for its connection, in ms. */
  readonly timeoutMs: number
  /** How many statements and transactions the database can run at a time: the pool's size. */
  readonly connections: number
  /** Opens transactions for the app, with the driver's own client. */
  readonly host: TransactionHost<unknown>
  /** Wraps each host of transactions that Pawl uses, `host` included. Default: no wrapper. */
  wrapHost?<Tx>(host: TransactionHost<Tx>): TransactionHost<Tx>
  /** Runs `work` in one transaction on one connection. */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>
  /**
   * Runs `work` on one connection, without a time limit: for migrations. When the signal fires, the statement that is
   * under way is cancelled, where the database can do that, and the promise rejects with the signal's reason.
   */
  session<T>(work: (session: Session) => Promise<T>, signal?: AbortSignal): Promise<T>
  /**
   * Calls `onMessage` for each notification on `channel` until the returned function is called. Calls
   * `onLost` once if the connection is lost. Rejects if the database cannot listen.
   */
  listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>>
  /** Closes the connections that Pawl opened; those of a pool that the app gave stay open. */
  close(): Promise<void>
}

/** Whether sending a failed statement again can help. */
export type Failure =
  /** Postgres was not reached, or cannot serve now: the same statement may succeed later. */
  | 'unavailable'
  /** A serialization failure or a deadlock: the same statement may succeed at once. */
  | 'conflict'
  /** A lock was not to be had within lock_timeout: the statement may succeed once its holder has ended. */
  | 'blocked'
  /** Postgres refused the statement itself: the same statement fails again. */
  | 'refused'

// SQLSTATE classes (PostgreSQL documentation, appendix A) after which a retry makes sense:
// connection exception, insufficient resources, operator intervention, system error, invalid
// authorization (a password rotation in progress), a server that is read-only after a failover, and a session
// that a timeout of the server has ended.
const UNAVAILABLE = /^(08|53|57|58|28|25006|25P0[34])/
const CONFLICT = /^40/
const LOCK_TIMEOUT = '55P03'
const SQLSTATE = /^[0-9A-Z]{5}$/

/** Classifies a driver's error by its SQLSTATE. */
export function classify(error: unknown): Failure {
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown }
  // Only Postgres itself sends five-character SQLSTATEs; every other error comes from the connection. A code of
  // the operating system can look like one (EPIPE), but its error has a `syscall`.
  if (typeof code !== 'string' || !SQLSTATE.test(code) || syscall) return 'unavailable'
  if (CONFLICT.test(code)) return 'conflict'
  if (code === LOCK_TIMEOUT) return 'blocked'
  return UNAVAILABLE.test(code) ? 'unavailable' : 'refused'
}

// Connection exceptions, and a server that ends the session (administrator, crash, idle session timeout).
const CONNECTION_ENDED = /^(08|57P0[125])/

/** Whether the connection failed and not the statement, so that the statement can be sent on another one. */
export function isConnectionError(error: unknown): boolean {
  if (error instanceof StatementError) return error.kind === 'connection'
  if (classify(error) !== 'unavailable') return false
  const { code, syscall } = (error ?? {}) as { code?: unknown; syscall?: unknown }
  const hasSqlState = typeof code === 'string' && SQLSTATE.test(code) && !syscall
  return !hasSqlState || CONNECTION_ENDED.test(code)
}
