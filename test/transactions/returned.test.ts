import 'reflect-metadata'
import { drizzle } from 'drizzle-orm/node-postgres'
import knexOf from 'knex'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import postgresOf from 'postgres'
import { DataSource, EntitySchema } from 'typeorm'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Execution, PawlError } from '../../lib/index.ts'
import { drizzleTransactions } from '../../lib/transactions/drizzle.ts'
import { knexTransactions } from '../../lib/transactions/knex.ts'
import { kyselyTransactions } from '../../lib/transactions/kysely.ts'
import { postgresTransactions } from '../../lib/transactions/postgres.ts'
import { typeormTransactions } from '../../lib/transactions/typeorm.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { allOrders, startOrders } from './context.ts'
import { orders } from './orms/drizzle.ts'
import type { Tables } from './orms/kysely.ts'
import { ORDERS } from './orms/orm.ts'

class Order {
  id!: number
  item!: string
}
const entity = new EntitySchema<Order>({
  name: 'Order',
  tableName: 'orders',
  target: Order,
  columns: {
    id: { type: 'integer', primary: true, generated: true },
    item: { type: 'text' },
  },
})

describe('what fn returns, as the ORM gives it', () => {
  const database = withDatabase()
  let pool: pg.Pool
  let db: ReturnType<typeof open>

  function open() {
    return {
      drizzle: drizzle({ client: pool }),
      knex: knexOf({ client: 'pg', connection: database.url, pool: { min: 0, max: 2 } }),
      kysely: new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }),
      postgres: postgresOf(database.url, { max: 2 }),
      typeorm: new DataSource({ type: 'postgres', url: database.url, entities: [entity] }),
    }
  }
  beforeAll(async () => {
    await database.pool.query(ORDERS)
    pool = new pg.Pool({ connectionString: database.url, max: 3 })
    db = open()
    await db.typeorm.initialize()
  })
  beforeEach(() => database.pool.query('truncate orders restart identity'))
  afterAll(() =>
    Promise.all([pool.end(), db.knex.destroy(), db.postgres.end(), db.typeorm.destroy()]),
  )

  const book = { item: 'book', ticket: null }
  const row = { id: 1, ...book }
  type Record = (execution: Execution) => Promise<unknown>

  const kept: [string, Record, unknown][] = [
    [
      'rows of Drizzle',
      (execution) =>
        execution.transaction('a', { on: drizzleTransactions(db.drizzle) }, (tx) =>
          tx.insert(orders).values(book).returning(),
        ),
      [row],
    ],
    [
      'rows of Knex',
      (execution) =>
        execution.transaction('a', { on: knexTransactions(db.knex) }, (trx) =>
          trx('orders').insert(book).returning('*'),
        ),
      [row],
    ],
    [
      'a row of Kysely',
      (execution) =>
        execution.transaction('a', { on: kyselyTransactions(db.kysely) }, (tx) =>
          tx.insertInto('orders').values(book).returningAll().executeTakeFirstOrThrow(),
        ),
      row,
    ],
    [
      'a result of postgres.js',
      (execution) =>
        execution.transaction(
          'a',
          { on: postgresTransactions(db.postgres) },
          (tx) => tx`insert into orders ${tx(book)} returning *`,
        ),
      [row],
    ],
    [
      'a part of an entity of TypeORM',
      (execution) =>
        execution.transaction('a', { on: typeormTransactions(db.typeorm) }, async (manager) => {
          const { id } = await manager.save(Order, { item: 'book' })
          return { id }
        }),
      { id: 1 },
    ],
  ]

  it.each(kept)('%s: kept', async (_, record, expected) => {
    const seen: unknown[] = []
    const app = await startOrders(database.url, async ({ execution }, res) => {
      seen.push(await record(execution))
      res.sendStatus(execution.attempt === 1 ? 500 : 201)
    })
    const key = freshKey()
    expect((await request(app.orders, { key })).status).toBe(500)
    expect((await request(app.orders, { key })).status).toBe(201)
    const [first, second] = seen as [unknown, unknown]
    // postgres.js' arrays have properties that JSON does not see.
    expect(JSON.parse(JSON.stringify(first))).toEqual(expected)
    expect(second).toEqual(expected)
    expect(await allOrders(database)).toHaveLength(1)
  })

  const refused: [string, Record][] = [
    [
      'an insert of Drizzle without returning',
      (execution) =>
        execution.transaction('a', { on: drizzleTransactions(db.drizzle) }, (tx) =>
          tx.insert(orders).values(book),
        ),
    ],
    [
      'an insert of Kysely without returning',
      (execution) =>
        execution.transaction('a', { on: kyselyTransactions(db.kysely) }, (tx) =>
          tx.insertInto('orders').values(book).executeTakeFirst(),
        ),
    ],
    [
      'an entity of TypeORM',
      (execution) =>
        execution.transaction('a', { on: typeormTransactions(db.typeorm) }, (manager) =>
          manager.save(Order, Object.assign(new Order(), { item: 'book' })),
        ),
    ],
  ]

  it.each(refused)('%s: refused, and nothing is committed', async (_, record) => {
    const errors: unknown[] = []
    const app = await startOrders(database.url, ({ execution }) => record(execution), {
      onError: (error) => errors.push(error),
    })
    expect((await request(app.orders, { key: freshKey() })).status).toBe(500)
    expect(errors).toEqual([expect.any(PawlError)])
    expect(errors).toMatchObject([{ code: 'value-unkeepable' }])
    expect(await allOrders(database)).toEqual([])
  })
})
