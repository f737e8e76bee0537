import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Database } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { type QueueLimits, QueueStore } from '../../lib/store/queue-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const { pool } = database
const db = new NodePostgres(pool, 30_000, false)
const store = new QueueStore(db, 'pawl')
const HANDLERS = ['workflow job']
const NONE: QueueLimits = { concurrency: null, concurrencyPerKey: null, rate: null }

beforeEach(async () => {
  await pool.query('truncate pawl.wakeups, pawl.slots, pawl.executions')
  await store.createGates(['q'])
})

/** A process whose statements run in a transaction that the test ends. */
const pools: pg.Pool[] = []
async function transaction(): Promise<{ store: QueueStore; client: pg.Pool }> {
  // One connection that is never given up.
  const client = new pg.Pool({ connectionString: database.url, max: 1, idleTimeoutMillis: 0 })
  pools.push(client)
  await client.query('begin')
  return { store: new QueueStore(new NodePostgres(client, 30_000, false), 'pawl'), client }
}
afterEach(async () => {
  await Promise.all(pools.splice(0).map((own) => own.end()))
})

/** Something that waits in the queue, in the order of the calls. */
let arrivals = 0
async function enqueue(
  lane: string | null,
  { priority = 0, handler = HANDLERS[0] as string, delay = '0' } = {},
): Promise<string> {
  const id = randomUUID()
  await pool.query(
    `insert into pawl.wakeups (execution_id, handler, due_at, max_attempts, admitted, priority, queue, lane, enqueued_at)
     values ($1, $2, pawl.now() + $3::interval, 3, false, $4, 'q', $5, timestamptz '2020-01-01' + $6 * interval '1 ms')`,
    [id, handler, delay, priority, lane, ++arrivals],
  )
  return id
}

const admitted = async () => {
  const { rows } = await pool.query(
    'select execution_id from pawl.wakeups where admitted order by enqueued_at',
  )
  return rows.map(({ execution_id }) => execution_id)
}
const blocked = async () => {
  const { rows } = await pool.query(
    'select execution_id from pawl.wakeups where blocked order by enqueued_at',
  )
  return rows.map(({ execution_id }) => execution_id)
}
const slots = async () => {
  const { rows } = await pool.query(
    `select lane, n from pawl.slots where lane <> 'gate' order by lane, n`,
  )
  return rows.map(({ lane, n }) => `${lane} ${n}`)
}
const admit = (limits: Partial<QueueLimits>, room = 10, own = store) =>
  own.admit('q', { ...NONE, ...limits }, HANDLERS, room)

/** What the end of an execution does to its slots and its wakeup. */
const end = (id: string, client: pg.Pool = pool) =>
  client.query(
    `with asleep as (delete from pawl.wakeups where execution_id = '${id}')
     delete from pawl.slots where execution_id = '${id}'`,
  )

describe('Admission', () => {
  it('takes as many as there are slots, the highest priority first, and what is due only', async () => {
    const low = await enqueue(null)
    const high = await enqueue(null, { priority: 9 })
    await enqueue(null, { priority: 9, delay: '1 hour' })
    const middle = await enqueue(null, { priority: 5 })
    expect((await admit({ concurrency: 2 })).admitted).toBe(2)
    expect(await admitted()).toEqual([high, middle])
    expect(await slots()).toEqual([' 1', ' 2'])
    expect((await admit({ concurrency: 2 })).admitted).toBe(0)
    await end(high)
    expect((await admit({ concurrency: 2 })).admitted).toBe(1)
    expect(await admitted()).toContain(low)
  })

  it('gives an execution all of its slots, or none', async () => {
    const ids = [await enqueue('a'), await enqueue('b'), await enqueue('c')]
    const limits = { concurrency: 2, concurrencyPerKey: 1, rate: { limit: 1, periodMs: 60_000 } }
    const first = await admit(limits)
    expect(first.admitted).toBe(1)
    expect(await slots()).toEqual([' 1', 'key a 1', 'rate 1'])
    const second = await admit(limits)
    expect(second.admitted).toBe(0)
    expect(second.rateLimitedMs).toBeGreaterThan(50_000)
    await pool.query(`update pawl.slots set held_until = pawl.now() where lane = 'rate'`)
    expect((await admit(limits)).admitted).toBe(1)
    expect(await admitted()).toEqual(ids.slice(0, 2))
    await pool.query(`update pawl.slots set held_until = pawl.now() where lane = 'rate'`)
    expect((await admit(limits)).admitted).toBe(0)
  })

  it('is done by one process at a time: another skips, and does not wait', async () => {
    await enqueue(null)
    await enqueue(null)
    const first = await transaction()
    expect((await admit({ concurrency: 1 }, 10, first.store)).admitted).toBe(1)
    expect(await admit({ concurrency: 1 })).toMatchObject({ admitted: 0, skipped: true })
    await first.client.query('commit')
    expect(await admit({ concurrency: 1 })).toMatchObject({ admitted: 0, skipped: false })
    expect(await admitted()).toHaveLength(1)
  })

  it('skips if another process has admitted since its snapshot was taken', async () => {
    await enqueue(null)
    await enqueue(null)
    // A clock that stops, in a session that asks for it, between the snapshot and everything else.
    await pool.query(`create or replace function pawl.now() returns timestamptz language plpgsql as $$
      begin
        if current_setting('test.stops', true) = 'yes' then perform pg_advisory_xact_lock(42); end if;
        return clock_timestamp();
      end $$`)
    const holder = await transaction()
    await holder.client.query('select pg_advisory_xact_lock(42)')
    const late = await transaction()
    await late.client.query(`set test.stops = 'yes'`)
    const result = admit({ concurrency: 1 }, 10, late.store)
    await waitFor('the late one to stop', async () => {
      const { rows } = await pool.query(
        `select from pg_locks where locktype = 'advisory' and not granted`,
      )
      return rows.length === 1
    })
    expect((await admit({ concurrency: 1 })).admitted).toBe(1)
    await holder.client.query('commit')
    expect(await result).toMatchObject({ admitted: 0, skipped: true })
    await late.client.query('commit')
    expect(await admitted()).toHaveLength(1)
    await pool.query(`create or replace function pawl.now() returns timestamptz
      language sql volatile parallel safe as 'select clock_timestamp()'`)
  })

  it('holds the limit when many try at once', async () => {
    for (let i = 0; i < 40; i++) await enqueue(`key ${i % 7}`)
    const limits = { concurrency: 5, concurrencyPerKey: 2 }
    const stores = Array.from({ length: 5 }, () => new QueueStore(db, 'pawl'))
    for (let round = 0; round < 10; round++) {
      await Promise.all(stores.map((own) => admit(limits, 3, own)))
      expect((await admitted()).length).toBeLessThanOrEqual(5)
    }
    expect(await admitted()).toHaveLength(5)
    const { rows } = await pool.query(
      'select lane, count(*)::int from pawl.wakeups where admitted group by lane having count(*) > 2',
    )
    expect(rows).toEqual([])
  })
})

describe('A lane', () => {
  const limits = { concurrencyPerKey: 1 }

  it('admits its first by arrival, and blocks the others, so that other keys are found', async () => {
    const hot: string[] = []
    for (let i = 0; i < 150; i++) hot.push(await enqueue('hot'))
    const cold = await enqueue('cold')
    expect(await admit(limits, 1)).toMatchObject({ admitted: 1, blocked: 149 })
    expect((await admit(limits, 1)).admitted).toBe(1)
    expect(await admitted()).toEqual([hot[0], cold])
    expect(await blocked()).toEqual(hot.slice(1))
    // One that comes later waits behind them.
    const late = await enqueue('hot', { priority: 9 })
    expect(await admit(limits)).toMatchObject({ admitted: 0, blocked: 1 })
    await end(hot[0] as string)
    await store.unblockNext({ queue: 'q', lane: 'hot', slots: 1 })
    expect(await blocked()).toEqual([...hot.slice(2), late])
    expect((await admit(limits)).admitted).toBe(1)
    expect(await admitted()).toEqual([hot[1], cold])
  })

  it('blocks nobody over a slot that is being freed, so that nobody is left behind', async () => {
    const [first, second] = [await enqueue('a'), await enqueue('a')]
    await admit(limits, 1)
    const third = await enqueue('a')
    const ending = await transaction()
    await end(first, ending.client)
    expect(await admit(limits)).toMatchObject({ admitted: 0, blocked: 0 })
    await ending.client.query('commit')
    await store.unblockNext({ queue: 'q', lane: 'a', slots: 1 })
    expect((await admit(limits)).admitted).toBe(1)
    expect(await admitted()).toEqual([second])
    expect(await blocked()).toEqual([third])
  })

  it('that blocks makes whoever frees it wait, who then sees the blocked', async () => {
    const first = await enqueue('a')
    await admit(limits, 1)
    const second = await enqueue('a')
    const blocking = await transaction()
    expect((await admit(limits, 10, blocking.store)).blocked).toBe(1)
    let freed = false
    const ending = end(first).then(() => {
      freed = true
    })
    await waitFor('the end to wait', async () => {
      const { rows } = await pool.query('select from pg_locks where not granted')
      return rows.length > 0
    })
    expect(freed).toBe(false)
    await blocking.client.query('commit')
    await ending
    await store.unblockNext({ queue: 'q', lane: 'a', slots: 1 })
    expect((await admit(limits)).admitted).toBe(1)
    expect(await admitted()).toEqual([second])
  })

  it('of which the process died that had to let the next go on is found by a sweep', async () => {
    const [first, second] = [await enqueue('a'), await enqueue('a')]
    await admit(limits, 1)
    expect(await store.stuckLanes('q', 1)).toEqual([])
    await end(first)
    const stuck = await store.stuckLanes('q', 1)
    expect(stuck).toEqual([{ queue: 'q', lane: 'a', slots: 1 }])
    await store.unblockNext(stuck[0]!)
    expect(await store.stuckLanes('q', 1)).toEqual([])
    expect((await admit(limits)).admitted).toBe(1)
    expect(await admitted()).toEqual([second])
  })

  it('whose first is of another version waits for it, and other keys do not', async () => {
    await enqueue('a', { handler: 'workflow job@old' })
    const own = await enqueue('a')
    const other = await enqueue('b')
    await admit(limits)
    expect(await admitted()).toEqual([other])
    expect(await blocked()).toEqual([own])
  })
})

describe('Slots', () => {
  it('whose execution is gone are freed, and no others', async () => {
    const [gone, there] = [await enqueue('a'), await enqueue('b')]
    await admit({ concurrency: 5, concurrencyPerKey: 1 })
    await pool.query('delete from pawl.wakeups where execution_id = $1', [gone])
    await store.freeOrphanedSlots(['q'])
    expect(await slots()).toEqual([' 2', 'key b 1'])
    expect(await admitted()).toEqual([there])
  })
})

describe('The plan of an admission, with 50,000 waiting', () => {
  it.each(['never analyzed', 'analyzed'])('reads by index when the table was %s', async (when) => {
    await pool.query(
      `insert into pawl.wakeups (execution_id, handler, due_at, max_attempts, admitted, queue, lane)
       select gen_random_uuid(), 'workflow job', pawl.now(), 3, false, 'q', 'lane ' || n % 1000
       from generate_series(1, ${cases(20_000, { proof: 50_000 })}) as n`,
    )
    if (when === 'analyzed') await pool.query('analyze pawl.wakeups')
    const plans: string[] = []
    const explained = Object.assign(Object.create(db), {
      query: async (sql: string, values: never) => {
        const rows = await db.query(`explain ${sql}`, values)
        plans.push(rows.map(([line]) => line).join('\n'))
        return db.query(sql, values)
      },
    }) as Database
    const own = new QueueStore(explained, 'pawl')
    const limits = { concurrency: 50, concurrencyPerKey: 1, rate: { limit: 50, periodMs: 1000 } }
    expect((await own.admit('q', limits, HANDLERS, 20)).admitted).toBe(20)
    await own.nextDue([{ queue: 'q', handler: HANDLERS[0] as string }])
    await own.unblockNext({ queue: 'q', lane: 'lane 1', slots: 1 })
    await own.stuckLanes('q', 1)
    for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on wakeups/)
    expect(plans[0]).toMatch(/wakeups_backlog/)
  })
})
