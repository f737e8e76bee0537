import { type SQL, sql } from 'drizzle-orm'
import type { IsolationLevel, TransactionHost } from '../store/database/transaction-host.ts'
import { aroundPlaceholders } from './placeholders.ts'

/** What Pawl uses of a Drizzle database for PostgreSQL, whichever driver it has. */
export interface DrizzleDatabase<Tx extends DrizzleTransaction> {
  transaction<T>(
    work: (tx: Tx) => Promise<T>,
    config?: { isolationLevel?: IsolationLevel },
  ): Promise<T>
}

/** What Pawl uses of a transaction of Drizzle's. */
export interface DrizzleTransaction {
  execute(query: SQL): PromiseLike<unknown>
}

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a Drizzle database: over
 * node-postgres, postgres.js, PGlite, or any other driver that has transactions.
 *
 * ```ts
 * await execution.transaction('record order', { on: drizzleTransactions(db) }, (tx) =>
 *   tx.insert(orders).values(order).returning())
 * ```
 */
export function drizzleTransactions<Tx extends DrizzleTransaction>(
  db: DrizzleDatabase<Tx>,
): TransactionHost<Tx> {
  return {
    transaction: (work, isolation) =>
      db.transaction(
        (tx) => work(tx, async (text, values) => rowsOf(await tx.execute(build(text, values)))),
        // An empty config becomes an empty SET TRANSACTION.
        isolation && { isolationLevel: isolation },
      ),
  }
}

function build(text: string, values: readonly (string | null)[]): SQL {
  const query = sql.empty()
  for (const [i, part] of aroundPlaceholders(text).entries()) {
    if (i > 0) query.append(sql`${values[i - 1]}`)
    query.append(sql.raw(part))
  }
  return query
}

/** postgres.js gives the rows, the others a result that has them. */
function rowsOf(result: unknown): Record<string, unknown>[] {
  return (Array.isArray(result) ? result : (result as { rows: unknown }).rows) as Record<
    string,
    unknown
  >[]
}
