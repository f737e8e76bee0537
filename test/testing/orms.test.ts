import { drizzle } from 'drizzle-orm/node-postgres'
import { Pool } from 'pg'
import { describe, expect, it } from 'vitest'
import { crashTest } from '../../lib/testing/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { isProof } from '../helpers/proof.ts'
import { overDrizzle } from '../transactions/orms/drizzle.ts'
import { openKnex } from '../transactions/orms/knex.ts'
import { openKysely } from '../transactions/orms/kysely.ts'
import { type OpensOrm, ORDERS } from '../transactions/orms/orm.ts'
import { openPostgres } from '../transactions/orms/postgres.ts'
import { openTypeorm } from '../transactions/orms/typeorm.ts'
import { appWith, SLOW } from './handlers.ts'

const { pool, url } = withDatabase()

async function openDrizzle(url: string) {
  const own = new Pool({ connectionString: url, max: 3 })
  return overDrizzle(drizzle({ client: own }), () => own.end())
}

/** An ORM has connections of its own, which know nothing of the crash test. */
function survives<Tx>(name: string, open: OpensOrm<Tx>) {
  it(name, async () => {
    await pool.query('drop table if exists orders')
    await pool.query(ORDERS)
    const orm = await open(url)
    const step = appWith(() => async (execution, _req, res) => {
      const order = await execution.transaction('record order', { on: orm.on }, (tx) =>
        orm.insert(tx, { item: execution.key, ticket: null }),
      )
      res.json(order.item.length)
    })
    const whole = appWith(
      () => async (execution, _req, res) => {
        const order = await orm.insert(execution.tx, { item: execution.key, ticket: null })
        await execution.step('look around', () => 1)
        res.json(order.item.length)
      },
      { transaction: { on: orm.on } },
    )
    const check = async ({ key }: { key: string }) =>
      (await pool.query('select item from orders where item = $1', [key])).rowCount
    for (const makeApp of [step, whole]) {
      const { points } = await crashTest(makeApp, { path: '/orders' }, { database: pool, check })
      expect(points.filter((point) => point.includes('transaction'))).toHaveLength(4)
    }
    await orm.close()
  })
}

describe('crashTest() dies in a transaction of', SLOW, () => {
  survives('Drizzle', openDrizzle)
  survives('postgres.js', openPostgres)
  if (isProof) {
    survives('Kysely', openKysely)
    survives('Knex', openKnex)
    survives('TypeORM', openTypeorm)
  }
})
