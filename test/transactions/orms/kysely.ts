import {
  CamelCasePlugin,
  type Generated,
  Kysely,
  PostgresDialect,
  sql,
  type Transaction,
} from 'kysely'
import pg from 'pg'
import { kyselyTransactions } from '../../../lib/transactions/kysely.ts'
import type { OpenOrm } from './orm.ts'

export interface Tables {
  orders: { id: Generated<number>; item: string; ticket: string | null }
}

/** With a plugin that changes the names of columns. */
export async function openKysely(url: string): Promise<OpenOrm<Transaction<Tables>>> {
  const pool = new pg.Pool({ connectionString: url, max: 3 })
  const db = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool }),
    plugins: [new CamelCasePlugin({ upperCase: true })],
  })
  return {
    on: kyselyTransactions(db),
    insert: (tx, order) =>
      tx
        .withoutPlugins()
        .insertInto('orders')
        .values(order)
        .returningAll()
        .executeTakeFirstOrThrow(),
    async count(tx) {
      const plain = tx.withoutPlugins().selectFrom('orders')
      const { n } = await plain.select((eb) => eb.fn.countAll().as('n')).executeTakeFirstOrThrow()
      return Number(n)
    },
    async rename(tx, item) {
      await tx.withoutPlugins().updateTable('orders').set({ item }).execute()
    },
    async isolation(tx) {
      const query = sql<{ level: string }>`select current_setting('transaction_isolation') as level`
      const { rows } = await query.execute(tx.withoutPlugins())
      return rows[0]!.level
    },
    close: () => db.destroy(),
  }
}
