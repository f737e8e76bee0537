/** Runs Pawl's SQL in PGlite, the in-process PostgreSQL. */

import type { Database, Query, Row, Session } from './database.ts'
import { inTime, LATE } from './in-time.ts'
import { PgArray, type Value } from './pg-array.ts'
import { StatementError } from './statement-error.ts'
import type { TransactionHost } from './transaction-host.ts'

/** The part of a PGlite instance (`@electric-sql/pglite`) that Pawl uses. */
export interface PGliteLike {
  query(sql: string, params?: unknown[], options?: object): Promise<{ rows: unknown[] }>
  exec(sql: string, options?: object): Promise<{ rows: unknown[] }[]>
  transaction<T>(work: (tx: Omit<PGliteLike, 'transaction' | 'listen'>) => Promise<T>): Promise<T>
  listen(channel: string, onMessage: (payload: string) => void): Promise<() => Promise<void>>
}

/** A Database over PGlite, which has one connection and runs one statement at a time. */
export class PGlite implements Database {
  readonly #db: PGliteLike
  readonly timeoutMs: number

  /** @param timeoutMs how long a statement may take, with the wait for the app's transactions, in ms */
  constructor(db: PGliteLike, timeoutMs: number) {
    this.#db = db
    this.timeoutMs = timeoutMs
  }

  readonly host: TransactionHost<object> = {
    transaction: (work, isolation) =>
      this.#db.transaction(async (tx) => {
        if (isolation) await tx.exec(`set transaction isolation level ${isolation}`)
        return work(tx, async (sql, values) => {
          const { rows } = await tx.query(sql, [...values])
          return rows as Record<string, unknown>[]
        })
      }),
  }

  readonly connections = 1

  query: Query = async (sql, values) => {
    const reply = send(this.#db, sql, values)
    try {
      return await inTime(this.timeoutMs, reply)
    } catch (error) {
      if (error !== LATE) throw error
      // It still waits, or runs: PGlite cannot cancel a statement.
      const ended = reply.then(ignore, ignore)
      const message = `no reply to a statement within ${this.timeoutMs} ms`
      throw new StatementError('timeout', message, ended)
    }
  }

  readonly urgent = this.query

  transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#db.transaction((tx) => work((sql, values) => send(tx, sql, values)))
  }

  session<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return work({
      query: (sql, values) => send(this.#db, sql, values),
      transaction: (work) => this.transaction(work),
      isDirect: false,
    })
  }

  listen(channel: string, onMessage: (payload: string) => void): Promise<() => Promise<void>> {
    // Quoted: PGlite folds an unquoted name to lower case and refuses reserved words.
    return this.#db.listen(`"${channel}"`, onMessage)
  }

  async close(): Promise<void> {}
}

async function send(
  db: Pick<PGliteLike, 'query' | 'exec'>,
  sql: string,
  values?: readonly Value[],
): Promise<Row[]> {
  if (!values) return ((await db.exec(sql, { rowMode: 'array' })).at(-1)?.rows ?? []) as Row[]
  const params = values.map((value) => (value instanceof PgArray ? [...value.items] : value))
  return (await db.query(sql, params, { rowMode: 'array' })).rows as Row[]
}

function ignore(): void {}
