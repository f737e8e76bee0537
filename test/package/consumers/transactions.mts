import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import knex from 'knex'
import { Kysely, PostgresDialect } from 'kysely'
import { step, transaction } from 'pawl'
import { drizzleTransactions } from 'pawl/drizzle'
import { knexTransactions } from 'pawl/knex'
import { kyselyTransactions } from 'pawl/kysely'
import { postgresTransactions } from 'pawl/postgres'
import { type PrismaTransaction, prismaTransactions } from 'pawl/prisma'
import { typeormTransactions } from 'pawl/typeorm'
import { Pool } from 'pg'
import postgres from 'postgres'
import { DataSource } from 'typeorm'

const pool = new Pool()
const kysely = new Kysely<{ orders: { item: string } }>({ dialect: new PostgresDialect({ pool }) })
declare const prisma: {
  $transaction<T>(
    work: (tx: PrismaTransaction & { order: { count(): Promise<number> } }) => Promise<T>,
  ): Promise<T>
}
export const used: Promise<unknown>[] = [
  transaction('a', { on: drizzleTransactions(drizzle({ client: pool })) }, (tx) =>
    tx.execute(sql`select 1`),
  ),
  transaction('b', { on: knexTransactions(knex.default({ client: 'pg' })) }, (trx) =>
    trx('orders').insert({ item: 'a' }),
  ),
  transaction('c', { on: kyselyTransactions(kysely), isolation: 'serializable' }, (tx) =>
    tx.selectFrom('orders').select('item').execute(),
  ),
  transaction('d', { on: postgresTransactions(postgres()) }, (tx) => tx`select 1`),
  transaction('e', { on: typeormTransactions(new DataSource({ type: 'postgres' })) }, (manager) =>
    manager.query('select 1'),
  ),
  step('f', async ({ idempotencyKey }) => idempotencyKey.length),
]
export const count: Promise<number> = transaction('g', { on: prismaTransactions(prisma) }, (tx) =>
  tx.order.count(),
)
// @ts-expect-error there is no such table
transaction('h', { on: kyselyTransactions(kysely) }, (tx) => tx.selectFrom('order').execute())
