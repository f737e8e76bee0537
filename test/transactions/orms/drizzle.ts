import { count, type ExtractTablesWithRelations, sql } from 'drizzle-orm'
import type { PgDatabase, PgQueryResultHKT, PgTransaction } from 'drizzle-orm/pg-core'
import { pgTable, serial, text } from 'drizzle-orm/pg-core'
import { drizzleTransactions } from '../../../lib/transactions/drizzle.ts'
import type { OpenOrm } from './orm.ts'

export const orders = pgTable('orders', {
  id: serial().primaryKey(),
  item: text().notNull(),
  ticket: text().unique(),
})

type Nothing = Record<string, never>

/** Drizzle over any driver. */
export function overDrizzle<Result extends PgQueryResultHKT>(
  db: PgDatabase<Result, Nothing>,
  close: () => Promise<void>,
): OpenOrm<PgTransaction<Result, Nothing, ExtractTablesWithRelations<Nothing>>> {
  return {
    on: drizzleTransactions(db),
    async insert(tx, order) {
      const [row] = await tx.insert(orders).values(order).returning()
      return row!
    },
    count: async (tx) => (await tx.select({ n: count() }).from(orders))[0]!.n,
    async rename(tx, item) {
      await tx.update(orders).set({ item })
    },
    async isolation(tx) {
      const level = sql<string>`current_setting('transaction_isolation')`
      const rows = await tx.select({ level }).from(sql`(select) as nothing`)
      return rows[0]!.level
    },
    close,
  }
}
