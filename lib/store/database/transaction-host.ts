/** Types by which Pawl runs its statements inside a transaction of the app, through a pool or an ORM. */

/** The client that a transaction of node-postgres passes to the app. */
export type { PoolClient } from 'pg'

/** Isolation levels of PostgreSQL, as it spells them. */
export type IsolationLevel = 'read committed' | 'repeatable read' | 'serializable'

/**
 * Runs one statement of Pawl inside a transaction of the app, and resolves to its rows as objects. Its
 * parameters $1, $2, … are text, in the order of their numbers, and each is used once. The keys of a row may
 * differ from the column names, because ORMs have plugins that rename columns.
 */
export type RunStatement = (
  sql: string,
  values: readonly (string | null)[],
) => Promise<readonly Record<string, unknown>[]>

/**
 * Opens transactions in the app's database: a pool, or an ORM. Pawl writes its journal entry in the same
 * transaction as the app's writes, so this database must be the one that has Pawl's schema.
 */
export interface TransactionHost<Tx> {
  /**
   * Runs `work` in one transaction, once: commits if `work` resolves; rolls back and rejects with the same error
   * if `work` rejects.
   *
   * @param isolation default: the default of the database, or of the library
   */
  transaction<T>(
    work: (tx: Tx, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T>
}

/**
 * Whether a transaction failed because of concurrent ones, and may succeed on a retry: a serialization
 * failure or a deadlock. P2034 is Prisma's own code for both.
 */
export function isConflict(error: unknown): boolean {
  return hasSqlState(error, ['40001', '40P01', 'P2034'])
}

/** Whether an error carries one of these SQLSTATEs, up to five levels deep in the errors that wrap it. */
export function hasSqlState(error: unknown, states: readonly string[]): boolean {
  let layer = error
  for (let depth = 0; depth < 5 && layer && typeof layer === 'object'; depth++) {
    const { code, originalCode, cause, driverError, meta } = layer as Record<string, unknown>
    // Prisma's driver adapters call it originalCode; their errors are in `meta` of Prisma's own errors.
    if (states.some((state) => state === code || state === originalCode)) return true
    const adapterError = (meta as Record<string, unknown> | undefined)?.driverAdapterError
    layer = cause ?? driverError ?? adapterError ?? meta
  }
  return false
}
