import type { Knex } from 'knex'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { aroundPlaceholders } from './placeholders.ts'

/**
 * Lets `execution.transaction`, and routes with `transaction: { on }`, use a Knex instance whose client
 * is PostgreSQL.
 *
 * ```ts
 * await execution.transaction('record order', { on: knexTransactions(knex) }, (trx) =>
 *   trx('orders').insert(order).returning('*'))
 * ```
 */
export function knexTransactions<Row extends object, Result>(
  knex: Knex<Row, Result>,
): TransactionHost<Knex.Transaction<Row, Result>> {
  return {
    transaction: (work, isolation) =>
      knex.transaction(
        (trx) =>
          work(trx as Knex.Transaction<Row, Result>, async (sql, values) => {
            const { rows } = await trx.raw(withQuestionMarks(sql), [...values])
            return rows
          }),
        isolation && { isolationLevel: isolation },
      ),
  }
}

/** Knex knows no $1, $2, …, and takes every other question mark for a binding unless it is escaped. */
function withQuestionMarks(sql: string): string {
  return aroundPlaceholders(sql.replaceAll('?', '\\?')).join('?')
}
