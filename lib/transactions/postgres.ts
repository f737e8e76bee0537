/** The entry point of pawl/postgres: lets Pawl record its journal entries in transactions of postgres.js. */

import type { Sql, TransactionSql } from 'postgres'
import type { TransactionHost } from '../store/database/transaction-host.ts'

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a postgres.js client.
 *
 * ```ts
 * await execution.transaction('record order', { on: postgresTransactions(sql) }, async (tx) => {
 *   const [order] = await tx`insert into orders ${tx(body)} returning *`
 *   return order
 * })
 * ```
 */
export function postgresTransactions<Types extends Record<string, unknown>>(
  sql: Sql<Types>,
): TransactionHost<TransactionSql<Types>> {
  return {
    transaction: (work, isolation) => {
      const run = (tx: TransactionSql<Types>) =>
        work(tx, async (text, values) => tx.unsafe(text, [...values]))
      // Cast, since the return type of begin() unwraps arrays of promises, to which `work` never resolves.
      return (
        isolation ? sql.begin(`isolation level ${isolation}`, run) : sql.begin(run)
      ) as Promise<never>
    },
  }
}
