import { drizzle as overNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as overPglite } from 'drizzle-orm/pglite'
import { drizzle as overPostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { describe, expect, it } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { openPglite } from '../helpers/pglite.ts'
import { isProof } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { conform } from './conform.ts'
import { overDrizzle } from './orms/drizzle.ts'
import { ORDERS } from './orms/orm.ts'

conform('drizzle over node-postgres', async (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 3 })
  return overDrizzle(overNodePostgres({ client: pool }), () => pool.end())
})

conform('drizzle over postgres.js', async (url) => {
  const client = postgres(url, { max: 3 })
  return overDrizzle(overPostgresJs({ client }), () => client.end())
})

if (isProof)
  describe('drizzle over PGlite, which is the database of Pawl too', () => {
    it('commits with the journal, rolls back with it, and is replayed', async () => {
      const pglite = await openPglite()
      await pglite.exec(ORDERS)
      const orm = overDrizzle(overPglite({ client: pglite }), () => pglite.close())
      let runs = 0
      const app = await startApp(
        pglite,
        undefined,
        (app) => {
          app.post('/orders', async (req, res) => {
            const execution = req.execution!
            const order = await execution.transaction(
              'record order',
              { on: orm.on },
              async (tx) => {
                runs++
                const order = await orm.insert(tx, { item: `run ${runs}`, ticket: null })
                if (runs === 1) throw new Error('half way')
                return order
              },
            )
            if (execution.attempt === 2) throw new Error('after the transaction')
            res.status(201).json(order)
          })
        },
        { pawl: { migrate: true } },
      )
      const key = freshKey()
      const answers: number[] = []
      for (let i = 0; i < 4; i++) {
        answers.push((await request(`${app.url}/orders`, { key })).status)
      }
      expect(answers).toEqual([500, 500, 201, 201])
      expect(runs).toBe(2)
      const { rows } = await pglite.query('select item from orders')
      expect(rows).toEqual([{ item: 'run 2' }])
      await app.pawl.stop()
      await orm.close()
    })
  })
