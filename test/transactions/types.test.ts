import type { ExtractTablesWithRelations } from 'drizzle-orm'
import type { NodePgDatabase, NodePgQueryResultHKT } from 'drizzle-orm/node-postgres'
import type { PgTransaction } from 'drizzle-orm/pg-core'
import type { PgliteDatabase, PgliteTransaction } from 'drizzle-orm/pglite'
import type { PostgresJsDatabase, PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js'
import type { Knex } from 'knex'
import type { Kysely, Transaction } from 'kysely'
import type { Sql, TransactionSql } from 'postgres'
import type { DataSource, EntityManager } from 'typeorm'
import { describe, expectTypeOf, it } from 'vitest'
import type { Execution, TransactionHost } from '../../lib/index.ts'
import { drizzleTransactions } from '../../lib/transactions/drizzle.ts'
import { knexTransactions } from '../../lib/transactions/knex.ts'
import { kyselyTransactions } from '../../lib/transactions/kysely.ts'
import { postgresTransactions } from '../../lib/transactions/postgres.ts'
import { typeormTransactions } from '../../lib/transactions/typeorm.ts'
import type { orders } from './orms/drizzle.ts'
import type { Tables } from './orms/kysely.ts'
import type { Order } from './orms/orm.ts'

type Schema = { orders: typeof orders }
type Relations = ExtractTablesWithRelations<Schema>
type TxOf<Host> = Host extends TransactionHost<infer Tx> ? Tx : never

// The functions are never called: the compiler checks them.
describe('types: fn gets the transaction of the ORM', () => {
  it('drizzle, with the schema, whichever the driver', () => {
    const overPg = (db: NodePgDatabase<Schema>) => drizzleTransactions(db)
    expectTypeOf<TxOf<ReturnType<typeof overPg>>>().toEqualTypeOf<
      PgTransaction<NodePgQueryResultHKT, Schema, Relations>
    >()
    const overPostgresJs = (db: PostgresJsDatabase<Schema>) => drizzleTransactions(db)
    expectTypeOf<TxOf<ReturnType<typeof overPostgresJs>>>().toEqualTypeOf<
      PgTransaction<PostgresJsQueryResultHKT, Schema, Relations>
    >()
    const overPglite = (db: PgliteDatabase<Schema>) => drizzleTransactions(db)
    expectTypeOf<TxOf<ReturnType<typeof overPglite>>>().toExtend<
      Pick<PgliteTransaction<Schema, Relations>, 'query' | 'insert'>
    >()
  })

  it('kysely, with the tables', () => {
    const host = (db: Kysely<Tables>) => kyselyTransactions(db)
    expectTypeOf<TxOf<ReturnType<typeof host>>>().toEqualTypeOf<Transaction<Tables>>()
  })

  it('knex', () => {
    const host = (knex: Knex) => knexTransactions(knex)
    expectTypeOf<TxOf<ReturnType<typeof host>>>().toEqualTypeOf<Knex.Transaction>()
  })

  it('typeorm', () => {
    const host = (dataSource: DataSource) => typeormTransactions(dataSource)
    expectTypeOf<TxOf<ReturnType<typeof host>>>().toEqualTypeOf<EntityManager>()
  })

  it('postgres.js, with custom types', () => {
    const host = (sql: Sql<{ point: [number, number] }>) => postgresTransactions(sql)
    expectTypeOf<TxOf<ReturnType<typeof host>>>().toEqualTypeOf<
      TransactionSql<{ point: [number, number] }>
    >()
  })

  it('inferred in the call, with the options before fn or after it', () => {
    const before = (execution: Execution, db: NodePgDatabase<Schema>) =>
      execution.transaction('find', { on: drizzleTransactions(db) }, (tx) =>
        tx.query.orders.findFirst(),
      )
    expectTypeOf<ReturnType<typeof before>>().toEqualTypeOf<Promise<Order | undefined>>()
    const after = (execution: Execution, db: Kysely<Tables>) =>
      execution.transaction(
        'find',
        (tx) => tx.selectFrom('orders').select('item').executeTakeFirst(),
        { on: kyselyTransactions(db), isolation: 'serializable' },
      )
    expectTypeOf<ReturnType<typeof after>>().toEqualTypeOf<Promise<{ item: string } | undefined>>()
    const wrong = (execution: Execution, db: Kysely<Tables>) =>
      // @ts-expect-error there is no such table
      execution.transaction('x', { on: kyselyTransactions(db) }, (tx) => tx.selectFrom('order'))
    expectTypeOf(wrong).toBeFunction()
  })
})
