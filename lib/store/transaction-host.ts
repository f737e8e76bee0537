/** What a transaction of node-postgres hands out. */
export type { PoolClient } from 'pg'

/** Isolation levels of PostgreSQL, as it spells them. */
export type IsolationLevel = 'read committed' | 'repeatable read' | 'serializable'

/** Runs one statement of Pawl's inside a transaction of the app's, with text parameters $1, $2, …. */
export type RunStatement = (
  sql: string,
  values: readonly (string | null)[],
) => Promise<readonly Record<string, unknown>[]>

/**
 * Whatever opens transactions in the app's database: a pool, or an ORM. The journal's entry goes into
 * the same transaction as the app's writes, so the database must be the one that has Pawl's schema.
 */
export interface TransactionHost<Tx> {
  /**
   * Runs `work` in one transaction: commits if it resolves, rolls back and rejects with its error if it
   * rejects. Does not run it again.
   *
   * @param isolation default: what the database, or the library, does by itself
   */
  transaction<T>(
    work: (tx: Tx, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T>
}

/**
 * Whether a transaction lost against concurrent ones, and may succeed when it is run again: a
 * serialization failure or a deadlock (SQLSTATE 40001, 40P01), however deep a library has wrapped it.
 */
export function isConflict(error: unknown): boolean {
  for (let at = error, depth = 0; at && depth < 5; depth++) {
    const { code, cause, driverError } = at as Record<string, unknown>
    // P2034 is Prisma's own code for both.
    if (code === '40001' || code === '40P01' || code === 'P2034') return true
    at = cause ?? driverError
  }
  return false
}
