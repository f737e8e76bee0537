import { afterAll, beforeAll, beforeEach, describe, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { type Context, startOrders } from './context.ts'
import { type OpenOrm, type OpensOrm, ORDERS } from './orms/orm.ts'
import { requestCases } from './request-cases.ts'
import { stepCases } from './step-cases.ts'

/** Runs the shared cases for an ORM. */
export function conform<Tx>(name: string, open: OpensOrm<Tx>): void {
  describe(name, () => {
    const here = withDatabase()
    const empty = withDatabase({ empty: true })
    const another = withDatabase()
    const databases = [here, empty, another]
    const orms: OpenOrm<Tx>[] = []
    let context: Context<Tx>

    beforeAll(async () => {
      for (const database of databases) {
        await database.pool.query(ORDERS)
        orms.push(await open(database.url))
      }
      const [orm, onEmpty, onAnother] = orms as [OpenOrm<Tx>, OpenOrm<Tx>, OpenOrm<Tx>]
      context = {
        database: here,
        orm,
        elsewhere: {
          empty: { orm: onEmpty, database: empty },
          another: { orm: onAnother, database: another },
        },
        start: (handler, settings) => startOrders(here.url, handler, settings),
      }
    })

    beforeEach(() => here.pool.query('truncate orders'))

    for (const { title, run } of [...stepCases, ...requestCases]) it(title, () => run(context))

    // Before the databases are dropped: hooks run in the reverse order.
    afterAll(() => Promise.all(orms.map((orm) => orm.close())))
  })
}
