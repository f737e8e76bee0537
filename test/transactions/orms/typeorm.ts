import 'reflect-metadata'
import { DataSource, type EntityManager, EntitySchema } from 'typeorm'
import { typeormTransactions } from '../../../lib/transactions/typeorm.ts'
import { ISOLATION, type OpenOrm, type Order } from './orm.ts'

const orders = new EntitySchema<Order>({
  name: 'orders',
  columns: {
    id: { type: 'integer', primary: true, generated: true },
    item: { type: 'text' },
    ticket: { type: 'text', nullable: true, unique: true },
  },
})

export async function openTypeorm(url: string): Promise<OpenOrm<EntityManager>> {
  const dataSource = new DataSource({
    type: 'postgres',
    url,
    entities: [orders],
    extra: { max: 3 },
  })
  await dataSource.initialize()
  return {
    on: typeormTransactions(dataSource),
    insert: (tx, order) => tx.save(orders, order as Order),
    count: (tx) => tx.count(orders),
    async rename(tx, item) {
      await tx.createQueryBuilder().update(orders).set({ item }).execute()
    },
    isolation: async (tx) => (await tx.query(ISOLATION))[0].level,
    close: () => dataSource.destroy(),
  }
}
