/** The entry point of pawl/kysely: lets Pawl record its journal entries in transactions of Kysely. */

import { CompiledQuery, type Kysely, type Transaction } from 'kysely'
import type { TransactionHost } from '../store/database/transaction-host.ts'

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a Kysely instance with a
 * PostgreSQL dialect.
 *
 * ```ts
 * await execution.transaction('record order', { on: kyselyTransactions(db) }, (tx) =>
 *   tx.insertInto('orders').values(order).returningAll().executeTakeFirstOrThrow())
 * ```
 */
export function kyselyTransactions<Tables>(
  db: Kysely<Tables>,
): TransactionHost<Transaction<Tables>> {
  return {
    transaction: (work, isolation) => {
      const builder = db.transaction()
      return (isolation ? builder.setIsolationLevel(isolation) : builder).execute((tx) =>
        work(tx, async (sql, values) => {
          const query = CompiledQuery.raw(sql, [...values])
          const { rows } = await tx.withoutPlugins().executeQuery(query)
          return rows as Record<string, unknown>[]
        }),
      )
    },
  }
}
