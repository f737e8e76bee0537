/** The entry point of pawl/drizzle: lets Pawl record its journal entries in transactions of Drizzle. */

import { type SQL, sql } from 'drizzle-orm'
import type { IsolationLevel, TransactionHost } from '../store/database/transaction-host.ts'
import { splitAtPlaceholders } from './placeholders.ts'

/** The part of a Drizzle database for PostgreSQL that Pawl uses; the same for every driver. */
export interface DrizzleDatabase<Tx extends DrizzleTransaction> {
  transaction<T>(
    work: (tx: Tx) => Promise<T>,
    config?: { isolationLevel?: IsolationLevel },
  ): Promise<T>
}

/** The part of a Drizzle transaction that Pawl uses. */
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
        (tx) =>
          work(tx, async (text, values) => rowsOf(await tx.execute(buildQuery(text, values)))),
        // Undefined instead of an empty config, for which Drizzle would send an empty SET TRANSACTION.
        isolation && { isolationLevel: isolation },
      ),
  }
}

function buildQuery(text: string, values: readonly (string | null)[]): SQL {
  const query = sql.empty()
  for (const [i, part] of splitAtPlaceholders(text).entries()) {
    if (i > 0) query.append(sql`${values[i - 1]}`)
    query.append(sql.raw(part))
  }
  return query
}

/** The rows of a result: with postgres.js the result is the rows, with other drivers it contains them. */
function rowsOf(result: unknown): Record<string, unknown>[] {
  return (Array.isArray(result) ? result : (result as { rows: unknown }).rows) as Record<
    string,
    unknown
  >[]
}
