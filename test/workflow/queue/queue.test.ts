import pg from 'pg'
import { describe, expect, it } from 'vitest'
import type { Pawl } from '../../../lib/index.ts'
import { withDatabase } from '../../helpers/database.ts'
import { openPglite } from '../../helpers/pglite.ts'
import { proofOnly } from '../../helpers/proof.ts'
import { freshKey } from '../../helpers/request.ts'
import { withRoles } from '../../helpers/role.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import { withWorkflows } from '../../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)
const createRole = withRoles(database)
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** The same app in several processes. */
async function processes<T>(count: number, define: (pawl: Pawl) => T): Promise<T[]> {
  const pawls = Array.from({ length: count }, () => app.pawl({ workers: { concurrency: 20 } }))
  const defined = pawls.map(define)
  await Promise.all(pawls.map((pawl) => pawl.start()))
  return defined
}

describe('A queue', () => {
  it('keeps its limits across all processes, and starts many executions in few statements', async () => {
    let running = 0
    let most = 0
    const byKey = new Map<string, number>()
    const [first, second, third] = await processes(3, (pawl) => {
      const queue = pawl.queue('few', { concurrency: 4, concurrencyPerKey: 2 })
      return pawl.workflow('job', { queue }, async (_, key: string) => {
        most = Math.max(most, ++running)
        byKey.set(key, (byKey.get(key) ?? 0) + 1)
        expect(byKey.get(key)).toBeLessThanOrEqual(2)
        await pause(5)
        byKey.set(key, (byKey.get(key) ?? 0) - 1)
        running--
      })
    })
    const starts = (from: number) =>
      Array.from({ length: 20 }, (_, i) => {
        const key = `key ${(from + i) % 5}`
        return { input: key, options: { queueKey: key } }
      })
    const handles = await Promise.all([
      first!.startMany(starts(0)),
      second!.startMany(starts(1)),
      third!.startMany(starts(2)),
    ])
    let held = 0
    const sampling = setInterval(async () => {
      const sql = `select held from pawl.queues where name = 'few'`
      held = Math.max(held, (await database.pool.query(sql)).rows[0].held)
    }, 10)
    await Promise.all(handles.flat().map((handle) => handle.result()))
    clearInterval(sampling)
    expect(most).toBeLessThanOrEqual(4)
    expect(held).toBeLessThanOrEqual(4)
    const { rows } = await database.pool.query(
      `select held, waiting from pawl.queues where name = 'few'
       union all select distinct held, waiting from pawl.lanes where queue = 'few'`,
    )
    expect(rows).toEqual([
      { held: 0, waiting: 0 },
      { held: 0, waiting: 0 },
    ])
  })

  it('runs the executions of one key one at a time, in the order of arrival', async () => {
    const order: string[] = []
    const workflows = await processes(3, (pawl) => {
      const queue = pawl.queue('in line', { concurrencyPerKey: 1 })
      return pawl.workflow(
        'in line',
        { queue },
        async (_, { key, n }: { key: string; n: number }) => {
          order.push(`${key} begin ${n}`)
          await pause(n % 2)
          order.push(`${key} end ${n}`)
        },
      )
    })
    const handles = []
    for (let n = 0; n < 15; n++) {
      for (const key of ['hot', 'cold']) {
        const workflow = workflows[n % 3]!
        handles.push(await workflow.start({ key, n }, { queueKey: key }))
      }
    }
    await Promise.all(handles.map((handle) => handle.result()))
    for (const key of ['hot', 'cold']) {
      expect(order.filter((what) => what.startsWith(key))).toEqual(
        Array.from({ length: 15 }, (_, n) => [`${key} begin ${n}`, `${key} end ${n}`]).flat(),
      )
    }
  })

  it('starts 1,000 in a few statements, in their order', async () => {
    const pawl = app.pawl({ workers: false })
    const queue = pawl.queue('many')
    const many = pawl.workflow('many', { queue }, () => 1)
    await pawl.start()
    await many.startMany(
      Array.from({ length: 1000 }, (_, n) => ({ input: n, options: { key: `${n}` } })),
    )
    const { rows } = await database.pool.query(
      `select count(distinct e.created_at)::int as statements, count(*)::int as n,
         array_agg(e.key::int order by w.enqueued_at) as keys
       from pawl.executions e join pawl.wakeups w on w.execution_id = e.id where e.name = 'many'`,
    )
    expect(rows[0].statements).toBeLessThanOrEqual(8)
    expect(rows[0].keys).toEqual(Array.from({ length: 1000 }, (_, n) => n))
    expect(await queue.backlog()).toMatchObject({ waiting: 1000, delayed: 0, running: 0 })
    const log = await database.pool.query(`select * from pawl.queue_log where queue = 'many'`)
    expect(log.rows).toMatchObject([{ backlog: '1000', delayed: '0', running: '0' }])
    expect(log.rows[0].oldest).toEqual((await queue.backlog()).oldest)
  })

  it('begins no more executions within a period than its rate limit', async () => {
    const [first] = await processes(2, (pawl) => {
      const queue = pawl.queue('slow', { rateLimit: { limit: 3, period: 700 } })
      return pawl.workflow('slow', { queue }, () => 1)
    })
    const handles = await first!.startMany(Array.from({ length: 8 }, () => ({ input: undefined })))
    const entered = new Map<number, number>()
    let over = false
    const watching = (async () => {
      while (!over) {
        const { rows } = await database.pool.query(
          `select rate from pawl.queues where name = 'slow'`,
        )
        for (const [at, n] of rows[0].rate) entered.set(at, n)
        await pause(5)
      }
    })()
    await Promise.all(handles.map((handle) => handle.result()))
    over = true
    await watching
    expect([...entered.values()].reduce((sum, n) => sum + n)).toBe(8)
    for (const [t] of entered) {
      const within = [...entered].filter(([other]) => other >= t && other < t + 700)
      expect(within.reduce((sum, [, n]) => sum + n, 0)).toBeLessThanOrEqual(3)
    }
  })

  it('begins the highest priority first, and none before its delay has passed', async () => {
    const ran: string[] = []
    const pawl = app.pawl({ workers: { concurrency: 1 } })
    const queue = pawl.queue('one', { concurrency: 1 })
    const job = pawl.workflow('one', { queue }, (_, name: string) => ran.push(name))
    const starter = app.pawl({ workers: false })
    const starts = starter.workflow(
      'one',
      { queue: starter.queue('one') },
      (_, name: string) => name,
    )
    await starter.start()
    await starts.start('later', { delay: '1 hour', priority: 9 })
    const low = await starts.start('low')
    await starts.start('high', { priority: 9 })
    await starts.start('middle', { priority: 5 })
    await pawl.start()
    await job.handle(low.key).result()
    expect(ran).toEqual(['high', 'middle', 'low'])
    expect(await queue.backlog()).toEqual({ waiting: 0, delayed: 1, running: 0, oldest: null })
  })

  it('refuses starts beyond its maxDepth, but not of executions that exist', async () => {
    const pawl = app.pawl({ workers: false })
    const queue = pawl.queue('shallow', { maxDepth: 3 })
    const job = pawl.workflow('shallow', { queue }, () => 1)
    await pawl.start()
    await job.start(1, { key: 'a' })
    await job.start(2, { key: 'b' })
    await expect(job.startMany([{ input: 3 }, { input: 4 }])).rejects.toMatchObject({
      code: 'limit-exceeded',
    })
    await job.start(3, { key: 'c' })
    await expect(job.start(4)).rejects.toMatchObject({ code: 'limit-exceeded' })
    await job.start(1, { key: 'a' })
    expect((await queue.backlog()).waiting).toBe(3)
  })

  it('gives the slot of a parked execution to the next one; released, the parked one is queued again', async () => {
    const pawl = app.pawl()
    let broken = true
    const queue = pawl.queue('parking', { concurrency: 1, concurrencyPerKey: 1 })
    const job = pawl.workflow('parking', { queue, retry: 1 }, (_, name: string) => {
      if (name === 'bad' && broken) throw new Error('broken')
      return name
    })
    await pawl.start()
    const bad = await job.start('bad', { queueKey: 'k' })
    const good = await job.start('good', { queueKey: 'k' })
    await app.until(bad.id, 'parked')
    expect(await good.result()).toBe('good')
    const held = await database.pool.query(
      `select held from pawl.queues where name = 'parking'
       union all select held from pawl.lanes where queue = 'parking'`,
    )
    expect(held.rows).toEqual([{ held: 0 }, { held: 0 }])
    // What is sent to it does not let it in.
    await bad.signal('hello')
    broken = false
    await pawl.release({ id: bad.id })
    expect(await bad.result()).toBe('bad')
  })

  it('drops an execution that is cancelled while it waits, at any position', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('leaving', { concurrencyPerKey: 1 })
    const ran: string[] = []
    const job = pawl.workflow('leaving', { queue }, async (execution, name: string) => {
      if (execution.attempt === 1) ran.push(name)
      if (name === 'holder') await execution.signal('end')
    })
    await pawl.start()
    const start = (name: string) => job.start(name, { queueKey: 'k', key: freshKey() })
    const holder = await start('holder')
    await waitFor('the holder to run', () => ran.length === 1)
    const waiting = [await start('a'), await start('b'), await start('c')]
    await waitFor('the others to be put aside', async () => {
      const { rows } = await database.pool.query(
        `select count(*)::int as n from pawl.wakeups where queue = 'leaving' and place = 'key'`,
      )
      return rows[0].n === 3
    })
    await waiting[1]!.cancel()
    await app.until(waiting[1]!.id, 'cancelled')
    expect(ran).toEqual(['holder'])
    await holder.signal('end')
    await waiting[2]!.result()
    expect(ran).toEqual(['holder', 'a', 'c'])
  })

  it("keeps the slots of a dead process's executions until another process has continued them", async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('dying', { concurrency: 1 })
    const ran: string[] = []
    const job = pawl.workflow('dying', { queue }, async (execution, name: string) => {
      ran.push(`${name} ${execution.attempt}`)
      if (name === 'first' && execution.attempt === 1) await new Promise(() => {})
    })
    await pawl.start()
    const first = await job.start('first')
    await waitFor('the first to run', () => ran.length === 1)
    const second = await job.start('second')
    // Dead, as far as the database can tell.
    await database.pool.query(
      'update pawl.executions set owner = gen_random_uuid() where id = $1',
      [first.id],
    )
    expect(await app.status(second.id)).toBe('waiting')
    const other = app.pawl()
    other.workflow(
      'dying',
      { queue: other.queue('dying', { concurrency: 1 }) },
      async (execution, name: string) => {
        ran.push(`${name} ${execution.attempt}`)
      },
    )
    await other.start()
    await database.pool.query(
      'update pawl.wakeups set due_at = pawl.now() where execution_id = $1',
      [first.id],
    )
    await app.until(second.id, 'done')
    expect(ran).toEqual(['first 1', 'first 2', 'second 1'])
  })
})

/** A queue, children in it, and an object, over any database. */
async function exercise(pawls: Pawl[]): Promise<void> {
  let running = 0
  let most = 0
  const [first] = pawls.map((pawl) => {
    const queue = pawl.queue('anywhere', { concurrency: 3, concurrencyPerKey: 2 })
    const child = pawl.workflow('anywhere child', { queue }, async (execution, n: number) => {
      await execution.step('work', async () => {
        most = Math.max(most, ++running)
        await pause(2)
        running--
      })
      return n
    })
    const parent = pawl.workflow('anywhere parent', { queue }, async (_, n: number) =>
      (await child.start(n, { queueKey: `${n % 3}` })).result(),
    )
    const counter = pawl.object('anywhere counter', {
      handlers: {
        add: async ({ state }) => {
          const n = ((await state.get<number>('n')) ?? 0) + 1
          await state.set('n', n)
          return n
        },
      },
    })
    return { parent, child, counter }
  })
  await Promise.all(pawls.map((pawl) => pawl.start()))
  const { parent, child, counter } = first!
  const inputs = Array.from({ length: 9 }, (_, n) => n)
  const handles = [
    ...(await parent.startMany(inputs.map((input) => ({ input })))),
    ...(await child.startMany(inputs.map((input) => ({ input, options: { queueKey: 'k' } })))),
  ]
  const calls = Promise.all(inputs.map(() => counter.of('c').add()))
  expect(await Promise.all(handles.map((handle) => handle.result()))).toEqual([
    ...inputs,
    ...inputs,
  ])
  expect([...(await calls)].sort()).toEqual(inputs.map((n) => n + 1))
  expect(most).toBeLessThanOrEqual(3)
}

describe('Queues and objects', () => {
  it('wake a workflow outside that is suspended until an execution of theirs ends', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('waited for', { concurrency: 2 })
    const job = pawl.workflow('waited for', { queue }, async (execution) => {
      await execution.sleep(600)
      return 'job'
    })
    const object = pawl.object('waited for', {
      handlers: {
        call: async (execution) => {
          await execution.sleep(600)
          return 'call'
        },
      },
    })
    const outside = pawl.workflow('outside', async () =>
      Promise.all([(await job.start(undefined)).result(), object.of('k').call()]),
    )
    await pawl.start()
    const handle = await outside.start(undefined)
    await app.until(handle.id, 'waiting')
    expect(await handle.result()).toEqual(['job', 'call'])
  })

  it('let in what waits in a queue that its workflow is no longer in', async () => {
    const before = app.pawl({ workers: false })
    const old = before.queue('old', { concurrency: 1 })
    const moved = before.workflow('moved', { queue: old }, (): string => 'not here')
    await before.start()
    const handles = [await moved.start(undefined), await moved.start(undefined)]
    const later = await moved.start(undefined, { delay: 100 })
    expect((await old.backlog()).waiting).toBe(2)
    const after = app.pawl()
    after.workflow('moved', (): string => 'here')
    await after.start()
    const results = await Promise.all([...handles, later].map((handle) => handle.result()))
    expect(results).toEqual(['here', 'here', 'here'])
  })

  it('work under an app pool whose transactions are serializable', async () => {
    const url = await createRole(
      `alter role ROLE set default_transaction_isolation = 'serializable';
       grant usage on schema pawl to ROLE;
       grant select, insert, update, delete on all tables in schema pawl to ROLE`,
    )
    const pools = [1, 2, 3].map(() => new pg.Pool({ connectionString: url, max: 5 }))
    const pawls = pools.map((pool) => app.pawl({ database: pool }))
    await exercise(pawls)
    await Promise.all(pawls.map((pawl) => pawl.stop()))
    await Promise.all(pools.map((pool) => pool.end()))
  })

  proofOnly('work on PGlite', async () => {
    const pglite = await openPglite()
    const pawl = app.pawl({ database: pglite, migrate: true })
    await exercise([pawl])
    await pawl.stop()
    await pglite.close()
  })
})
