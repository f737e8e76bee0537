/** The entry point of pawl/knex: lets Pawl record its journal entries in transactions of Knex. */

import type { Knex } from 'knex'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { splitAtPlaceholders } from './placeholders.ts'

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

/**
 * Replaces $1, $2, … by question marks, which Knex uses instead, and escapes the other question marks, which
 * it would take for parameters.
 */
function withQuestionMarks(sql: string): string {
  return splitAtPlaceholders(sql.replaceAll('?', '\\?')).join('?')
}
