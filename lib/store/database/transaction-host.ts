/** What a transaction of node-postgres hands out. */
export type { PoolClient } from 'pg'

/** Isolation levels of PostgreSQL, as it spells them. */
export type IsolationLevel = 'read committed' | 'repeatable read' | 'serializable'

/**
 * Runs one statement of Pawl's inside a transaction of the app's, and resolves to its rows as objects.
 * Its parameters $1, $2, … are text, in the order of their numbers, each used once. Names of columns may
 * come back changed: ORMs have plugins for that.
 */
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
 * serialization failure or a deadlock. P2034 is Prisma's own code for both.
 */
export function isConflict(error: unknown): boolean {
  return failedWith(error, ['40001', '40P01', 'P2034'])
}

/** Whether an error carries one of these SQLSTATEs, however deep a library has wrapped it. */
export function failedWith(error: unknown, states: readonly string[]): boolean {
  let layer = error
  for (let depth = 0; depth < 5 && layer && typeof layer === 'object'; depth++) {
    const { code, originalCode, cause, driverError, meta } = layer as Record<string, unknown>
    // originalCode: of Prisma's driver adapters, whose errors are in `meta` of Prisma's own.
    if (states.some((state) => state === code || state === originalCode)) return true
    const adapterError = (meta as Record<string, unknown> | undefined)?.driverAdapterError
    layer = cause ?? driverError ?? adapterError ?? meta
  }
  return false
}
