import postgres, { type TransactionSql } from 'postgres'
import { postgresTransactions } from '../../../lib/transactions/postgres.ts'
import type { OpenOrm, Order } from './orm.ts'

/** With a transform that changes the names of columns. */
export async function openPostgres(url: string): Promise<OpenOrm<TransactionSql>> {
  const sql = postgres(url, { max: 3, transform: { column: { from: (name) => `the_${name}` } } })
  return {
    on: postgresTransactions(sql),
    async insert(tx, order) {
      const [row] = await tx`insert into orders ${tx({ ...order })} returning id, item, ticket`
      const { the_id, the_item, the_ticket } = row!
      return { id: the_id, item: the_item, ticket: the_ticket } satisfies Order
    },
    async count(tx) {
      const [row] = await tx`select count(*)::int as n from orders`
      return row!.the_n
    },
    async rename(tx, item) {
      await tx`update orders set item = ${item}`
    },
    async isolation(tx) {
      const [row] = await tx`select current_setting('transaction_isolation') as level`
      return row!.the_level
    },
    close: () => sql.end(),
  }
}
