import { expect } from 'vitest'
import { PawlError } from '../../lib/index.ts'
import { door } from '../helpers/door.ts'
import { freshKey, request } from '../helpers/request.ts'
import { allOrders, allSteps, type Case } from './context.ts'
import { race } from './step-cases.ts'

/** What a route with `transaction: { on }` does with any ORM. */
export const requestCases: Case[] = [
  {
    title: 'a whole request: its writes and its answer are one transaction',
    async run({ database, orm, start }) {
      let runs = 0
      const app = await start(
        async ({ execution }, res) => {
          runs++
          const { item } = await orm.insert(execution.tx, { item: 'book', ticket: null })
          res.status(201).json({ item })
        },
        { route: { transaction: { on: orm.on } } },
      )
      const key = freshKey()
      const first = await request(app.orders, { key })
      expect(first.status).toBe(201)
      expect(first.json).toEqual({ item: 'book' })
      const [order, ...more] = await allOrders(database)
      expect(more).toEqual([])
      const { rows } = await database.pool.query(
        'select xmin::text as by, status from pawl.executions where key = $1',
        [key],
      )
      expect(rows).toEqual([{ by: order!.by, status: 'done' }])
      const second = await request(app.orders, { key })
      expect(second.headers['idempotent-replayed']).toBe('true')
      expect(second.body).toEqual(first.body)
      expect(runs).toBe(1)
    },
  },
  ...(['a 5xx', 'a throw'] as const).map(
    (ending): Case => ({
      title: `a whole request: ${ending} rolls all of it back, and a retry runs it again`,
      async run({ database, orm, start }) {
        const app = await start(
          async ({ execution }, res) => {
            await orm.insert(execution.tx, { item: `attempt ${execution.attempt}`, ticket: null })
            if (execution.attempt > 1) res.sendStatus(201)
            else if (ending === 'a 5xx') res.sendStatus(503)
            else throw new Error('half way')
          },
          { route: { transaction: { on: orm.on } } },
        )
        const key = freshKey()
        expect((await request(app.orders, { key })).status).toBe(ending === 'a 5xx' ? 503 : 500)
        expect(await allOrders(database)).toEqual([])
        expect((await request(app.orders, { key })).status).toBe(201)
        expect(await allOrders(database)).toMatchObject([{ item: 'attempt 2' }])
      },
    }),
  ),
  {
    title:
      'a whole request: of two processes the second to commit rolls back and gives the same answer',
    async run({ database, orm, start }) {
      const { open, reached, pass } = door()
      const answers = await race(
        database,
        start,
        async ({ execution }) => {
          const item = `attempt ${execution.attempt}`
          const order = await orm.insert(execution.tx, { item, ticket: null })
          if (execution.attempt === 1) await pass()
          return order.item
        },
        { open, reached },
        { transaction: { on: orm.on }, resumable: true },
      )
      expect(answers).toEqual(['attempt 2', 'attempt 2'])
      expect(await allOrders(database)).toMatchObject([{ item: 'attempt 2' }])
    },
  },
  ...(
    [
      ['a database without the schema', 'empty', 'schema-missing'],
      ['the database of another Pawl', 'another', 'execution-gone'],
    ] as const
  ).flatMap(([what, where, code]): Case[] => [
    {
      title: `the ORM points at ${what}: a transaction commits nothing and says so`,
      async run({ elsewhere, start, database }) {
        const { orm, database: other } = elsewhere[where]
        const errors: unknown[] = []
        const app = await start(
          async ({ execution }) =>
            execution.transaction('record order', { on: orm.on }, (tx) =>
              orm.insert(tx, { item: 'lost', ticket: null }),
            ),
          { onError: (error) => errors.push(error) },
        )
        const key = freshKey()
        expect((await request(app.orders, { key })).status).toBe(500)
        expect(errors).toEqual([expect.any(PawlError)])
        const [error] = errors as PawlError[]
        expect(error!.code).toBe(code)
        expect(error!.hint).toMatch(/must be connected to the database that was passed to new Pawl/)
        expect(await allOrders(other)).toEqual([])
        expect(await allSteps(database, key)).toEqual([])
      },
    },
    {
      title: `the ORM points at ${what}: a whole request commits nothing and the log says so`,
      async run({ elsewhere, start }) {
        const { orm, database: other } = elsewhere[where]
        const logged: unknown[] = []
        const logger = {
          debug() {},
          warn: (_: string, fields?: { error?: unknown }) => logged.push(fields?.error),
        }
        const app = await start(
          async ({ execution }, res) => {
            await orm.insert(execution.tx, { item: 'lost', ticket: null })
            res.sendStatus(201)
          },
          { route: { transaction: { on: orm.on } }, pawl: { logger } },
        )
        const answer = await request(app.orders, { key: freshKey() })
        expect(answer.status).toBe(503)
        expect(logged).toMatchObject([{ code }])
        expect(await allOrders(other)).toEqual([])
      },
    },
  ]),
]
