import { expect } from 'vitest'
import { hasSqlState } from '../../lib/store/database/transaction-host.ts'
import { door } from '../helpers/door.ts'
import { freshKey, request } from '../helpers/request.ts'
import { allOrders, allSteps, type Case, declareDead } from './context.ts'

/** What `execution.transaction(name, { on }, fn)` does with any ORM. */
export const stepCases: Case[] = [
  {
    title: 'its writes and the journal entry are one transaction, and replays do not run it again',
    async run({ database, orm, start }) {
      const seen: unknown[] = []
      let runs = 0
      const app = await start(async ({ execution }, res) => {
        const order = await execution.transaction('record order', { on: orm.on }, async (tx) => {
          runs++
          const { item } = await orm.insert(tx, { item: 'book', ticket: null })
          return { item, at: new Date(), level: await orm.isolation(tx) }
        })
        seen.push(order)
        if (execution.attempt === 1) throw new Error('after the transaction')
        res.status(201).json(order)
      })
      const key = freshKey()
      const first = await request(app.orders, { key })
      expect(first.status).toBe(500)
      const [order] = await allOrders(database)
      const [step] = await allSteps(database, key)
      expect(step).toEqual({ name: 'record order', kind: 'transaction', attempt: 1, by: order!.by })
      const second = await request(app.orders, { key })
      expect(second.status).toBe(201)
      expect(second.json).toMatchObject({ item: 'book', level: 'read committed' })
      expect(seen).toHaveLength(2)
      expect(seen[1]).toEqual(seen[0])
      const third = await request(app.orders, { key })
      expect(third.headers['idempotent-replayed']).toBe('true')
      expect(third.body).toEqual(second.body)
      expect(runs).toBe(1)
      expect(await allOrders(database)).toHaveLength(1)
    },
  },
  {
    title: 'an error in it rolls back the writes and the journal entry; a retry runs it again',
    async run({ database, orm, start }) {
      let runs = 0
      const app = await start(async ({ execution }, res) => {
        await execution.transaction('record order', { on: orm.on }, async (tx) => {
          runs++
          await orm.insert(tx, { item: `attempt ${execution.attempt}`, ticket: null })
          if (execution.attempt === 1) throw new Error('half way')
        })
        res.sendStatus(201)
      })
      const key = freshKey()
      expect((await request(app.orders, { key })).status).toBe(500)
      expect(await allOrders(database)).toEqual([])
      expect(await allSteps(database, key)).toEqual([])
      expect((await request(app.orders, { key })).status).toBe(201)
      expect(await allOrders(database)).toMatchObject([{ item: 'attempt 2' }])
      expect(await allSteps(database, key)).toMatchObject([{ attempt: 2 }])
      expect(runs).toBe(2)
    },
  },
  {
    title: 'what it still does after its end is refused, and writes nothing',
    async run({ database, orm, start }) {
      const { open, pass } = door()
      let late: Promise<unknown> | undefined
      const app = await start(async ({ execution }) =>
        execution.transaction('record order', { on: orm.on }, async (tx) => {
          const slow = async () => {
            await orm.insert(tx, { item: 'first half', ticket: null })
            await pass()
            await orm.insert(tx, { item: 'second half', ticket: null })
          }
          late = slow()
          late.catch(() => {})
          await new Promise((resolve) => setTimeout(resolve, 50))
          throw new Error('the other branch')
        }),
      )
      expect((await request(app.orders, { key: freshKey() })).status).toBe(500)
      open()
      await expect(late).rejects.toThrow()
      expect(await allOrders(database)).toEqual([])
    },
  },
  {
    title: 'what the database refuses reaches the handler as the ORM throws it, and is not retried',
    async run({ database, orm, start }) {
      await database.pool.query("insert into orders (item, ticket) values ('theirs', 'T1')")
      let runs = 0
      let caught: unknown
      const app = await start(async ({ execution }, res) => {
        try {
          await execution.transaction('record order', { on: orm.on }, (tx) => {
            runs++
            return orm.insert(tx, { item: 'ours', ticket: 'T1' })
          })
        } catch (error) {
          caught = error
        }
        res.sendStatus(409)
      })
      const key = freshKey()
      expect((await request(app.orders, { key })).status).toBe(409)
      expect(hasSqlState(caught, ['23505'])).toBe(true)
      expect(runs).toBe(1)
      expect(await allOrders(database)).toMatchObject([{ item: 'theirs' }])
      expect(await allSteps(database, key)).toEqual([])
    },
  },
  ...(['read committed', 'serializable'] as const).map(
    (isolation): Case => ({
      title: `of two processes the second at the journal rolls back and adopts (${isolation})`,
      async run({ database, orm, start }) {
        const { open, reached, pass } = door()
        const ran: number[] = []
        const got: unknown[] = []
        const handler = async ({ execution }: Parameters<Parameters<typeof start>[0]>[0]) => {
          const order = await execution.transaction(
            'record order',
            async (tx) => {
              ran.push(execution.attempt)
              const item = `attempt ${execution.attempt}`
              const order = await orm.insert(tx, { item, ticket: null })
              if (execution.attempt === 1) await pass()
              return order.item
            },
            { on: orm.on, isolation },
          )
          got.push(order)
          return order
        }
        const answers = await race(database, start, handler, { open, reached })
        expect(answers).toEqual(['attempt 2', 'attempt 2'])
        expect(got).toEqual(['attempt 2', 'attempt 2'])
        expect(ran).toEqual([1, 2])
        expect(await allOrders(database)).toMatchObject([{ item: 'attempt 2' }])
      },
    }),
  ),
  {
    title: "of two processes the second at the app's own unique constraint adopts",
    async run({ database, orm, start }) {
      const { open, reached, pass } = door()
      const ran: number[] = []
      const answers = await race(
        database,
        start,
        ({ execution }) =>
          execution.transaction('record order', { on: orm.on }, async (tx) => {
            ran.push(execution.attempt)
            if (execution.attempt === 1) await pass()
            const item = `attempt ${execution.attempt}`
            return (await orm.insert(tx, { item, ticket: 'the only one' })).item
          }),
        { open, reached },
      )
      expect(answers).toEqual(['attempt 2', 'attempt 2'])
      expect(ran).toEqual([1, 2])
      expect(await allOrders(database)).toMatchObject([{ item: 'attempt 2' }])
    },
  },
  {
    title: 'a concurrent update is retried (repeatable read)',
    async run({ database, orm, start }) {
      await database.pool.query("insert into orders (item) values ('old')")
      let runs = 0
      const app = await start(async ({ execution }, res) => {
        const level = await execution.transaction(
          'rename',
          { on: orm.on, isolation: 'repeatable read' },
          async (tx) => {
            await orm.count(tx) // Takes the snapshot.
            if (++runs === 1) await database.pool.query("update orders set item = 'theirs'")
            await orm.rename(tx, 'ours')
            return orm.isolation(tx)
          },
        )
        res.status(201).json({ level, attempt: execution.attempt })
      })
      const answer = await request(app.orders, { key: freshKey() })
      expect(answer.json).toEqual({ level: 'repeatable read', attempt: 1 })
      expect(runs).toBe(2)
      expect(await allOrders(database)).toMatchObject([{ item: 'ours' }])
    },
  },
  {
    title: 'write skew is retried, even if only the commit finds it (serializable)',
    async run({ database, orm, start }) {
      let runs = 0
      const app = await start(async ({ execution }, res) => {
        const result = await execution.transaction(
          'count and insert',
          { on: orm.on, isolation: 'serializable' },
          async (tx) => {
            const before = await orm.count(tx)
            await orm.insert(tx, { item: 'ours', ticket: null })
            // After our last read or write, so that no statement of the app's can find the conflict.
            if (++runs === 1) await countAndInsert(database)
            return before
          },
        )
        res.status(201).json(result)
      })
      const key = freshKey()
      const answer = await request(app.orders, { key })
      expect(answer.json).toBe(1)
      expect(runs).toBe(2)
      expect(await allOrders(database)).toMatchObject([{ item: 'theirs' }, { item: 'ours' }])
      expect(await allSteps(database, key)).toHaveLength(1)
    },
  },
]

type Context = Parameters<Case['run']>[0]
type Execute = (...args: Parameters<Parameters<Context['start']>[0]>) => Promise<unknown>

/**
 * The same request at two processes: the first seems dead while it waits at the door, the second takes
 * over and is done before the door opens.
 * @returns what both answered
 */
export async function race(
  database: Context['database'],
  start: Context['start'],
  execute: Execute,
  { open, reached }: Pick<ReturnType<typeof door>, 'open' | 'reached'>,
  route: NonNullable<Parameters<Context['start']>[1]>['route'] = { resumable: true },
): Promise<unknown[]> {
  const handler: Execute = async (req, res) => res.status(201).json(await execute(req, res))
  const slow = await start(handler, { route })
  const fast = await start(handler, { route })
  const key = freshKey()
  const first = request(slow.orders, { key })
  await reached
  await declareDead(database, key)
  const second = await request(fast.orders, { key })
  open()
  const { rows } = await database.pool.query(
    'select status, attempt from pawl.executions where key = $1',
    [key],
  )
  expect(rows).toEqual([{ status: 'done', attempt: 2 }])
  return [(await first).json, second.json]
}

/** Another transaction that reads all orders and adds one, and commits first. */
async function countAndInsert({ pool }: Context['database']): Promise<void> {
  const client = await pool.connect()
  await client.query('begin isolation level serializable')
  await client.query('select count(*) from orders')
  await client.query("insert into orders (item) values ('theirs')")
  await client.query('commit')
  client.release()
}
