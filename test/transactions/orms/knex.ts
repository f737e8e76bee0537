import knex, { type Knex } from 'knex'
import { knexTransactions } from '../../../lib/transactions/knex.ts'
import { ISOLATION, type OpenOrm, type Order } from './orm.ts'

const shout = (row: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(row).map(([name, value]) => [`the_${name}`, value]))

/** With a hook that changes the names of columns. */
export async function openKnex(url: string): Promise<OpenOrm<Knex.Transaction>> {
  const db = knex({
    client: 'pg',
    connection: url,
    pool: { min: 0, max: 3 },
    postProcessResponse: (result) => {
      if (Array.isArray(result?.rows)) result.rows = result.rows.map(shout)
      return result
    },
  })
  return {
    on: knexTransactions(db),
    async insert(tx, order) {
      const [row] = await tx<Order>('orders').insert(order).returning(['id', 'item', 'ticket'])
      return row!
    },
    async count(tx) {
      const row = await tx('orders').count({ n: '*' }).first()
      return Number(row?.n)
    },
    async rename(tx, item) {
      await tx('orders').update({ item })
    },
    isolation: async (tx) => (await tx.raw(ISOLATION)).rows[0].the_level,
    close: () => db.destroy(),
  }
}
