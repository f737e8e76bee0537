import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { beforeEach, describe, expect, it } from 'vitest'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import type { AttemptRef } from '../../lib/store/execution-store.ts'
import { wakeupStatements } from '../../lib/store/sql/wakeup-statements.ts'
import { StepStore } from '../../lib/store/step-store.ts'
import { WakeupStore } from '../../lib/store/wakeup-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { storeOver } from '../helpers/store.ts'

const database = withDatabase()

interface Due {
  handler?: string
  priority?: number
  begun?: boolean
  /** Since when the first is due, in s; each next one is due a millisecond later. */
  since?: number
}

/** Stores executions that are due. */
async function insertDue(count: number, given: Due = {}): Promise<void> {
  const { handler = 'flood', priority = 0, begun = false, since = 60 } = given
  await database.pool.query(
    `with new as (
       insert into pawl.executions
         (id, scope, key, kind, name, fingerprint, status, attempt, input, created_at, expires_at)
       select gen_random_uuid(), '', n || gen_random_uuid()::text, 'workflow', $1, '\\x01', 'waiting', $4::int, '\\x', pawl.now(), 'infinity'
       from generate_series(1, $2::int) as n
       returning id)
     insert into pawl.wakeups (execution_id, handler, priority, begun, due_at, max_attempts)
     select id, $1, $3, $4::int = 1,
       pawl.now() - $5 * interval '1 second' + row_number() over () * interval '1 millisecond', 10
     from new`,
    [handler, count, priority, Number(begun), since],
  )
}

async function worker() {
  const db = new NodePostgres(database.pool, 10_000, false)
  const { owner } = await storeOver(db)
  const store = new WakeupStore(db, 'pawl', owner, 60_000)
  return {
    store,
    owner,
    lease: (handlers: string[], limit: number) => store.leaseDue(handlers, limit, []),
  }
}

/** How many of each name were leased. */
function countsOf(leased: readonly { name: string; attempt: number }[]) {
  const counts: Record<string, number> = {}
  for (const { name } of leased) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

beforeEach(() => database.pool.query('truncate pawl.executions, pawl.wakeups'))

describe('of many that are due', () => {
  it('handlers take turns: none starves behind the backlog of another', async () => {
    const { lease } = await worker()
    await insertDue(500, { handler: 'flood', since: 3600 })
    await insertDue(5, { handler: 'cron', since: 1 })
    await insertDue(100, { handler: 'other', since: 60 })
    const { leased } = await lease(['flood', 'cron', 'other', 'idle'], 50)
    expect(countsOf(leased)).toEqual({ cron: 5, flood: 23, other: 22 })
  })

  it('what has begun goes first, and what has not keeps a share', async () => {
    const { lease } = await worker()
    await insertDue(500, { since: 3600 })
    await insertDue(500, { begun: true, since: 1 })
    const { leased } = await lease(['flood'], 40)
    expect(leased.filter(({ attempt }) => attempt > 1)).toHaveLength(30)
    expect(leased.filter(({ attempt }) => attempt === 1)).toHaveLength(10)
  })

  it('one has begun once it was leased', async () => {
    const { lease } = await worker()
    await insertDue(3)
    await lease(['flood'], 2)
    const sql = 'select begun, count(*)::int as n from pawl.wakeups group by begun order by begun'
    expect((await database.pool.query(sql)).rows).toEqual([
      { begun: false, n: 1 },
      { begun: true, n: 2 },
    ])
  })

  it('the highest priority goes first, whatever has begun, and each handler has its turn within it', async () => {
    const { lease } = await worker()
    await insertDue(500, { begun: true, since: 3600 })
    await insertDue(15, { handler: 'urgent', priority: 9, since: 1 })
    await insertDue(15, { priority: 9, since: 1800 })
    const { leased } = await lease(['flood', 'urgent'], 20)
    expect(countsOf(leased)).toEqual({ flood: 10, urgent: 10 })
    expect(leased.filter(({ attempt }) => attempt > 1)).toEqual([])
  })

  it('those that are due first go first', async () => {
    const { lease } = await worker()
    await insertDue(10, { since: 10 })
    await insertDue(10, { since: 3600 })
    const { leased } = await lease(['flood'], 10)
    const late = `select count(*)::int as n from pawl.wakeups where not begun and due_at < pawl.now() - interval '1 minute'`
    expect([leased.length, (await database.pool.query(late)).rows[0].n]).toEqual([10, 0])
  })
})

describe('several workers', () => {
  it('lock no more than they take, and see that others have locked the rest', async () => {
    await insertDue(30)
    await insertDue(30, { handler: 'other' })
    const [one, two] = await Promise.all([worker(), worker()])
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await client.query('begin')
    const { leaseDue } = wakeupStatements('"pawl"')
    const handlers = ['flood', 'other']
    await client.query(leaseDue, [handlers, 10, one.owner, 60_000, [], 80])
    const second = await two.lease(handlers, 100)
    expect([second.leased.length, second.examined, second.locked]).toEqual([50, 50, 10])
    await client.query('rollback')
    const third = await two.lease(handlers, 100)
    expect([third.leased.length, third.locked]).toEqual([10, 0])
    await client.end()
  })

  it('share a backlog: each is leased once, and hardly any comes back with nothing while there is more', async () => {
    const count = 4000
    await insertDue(count / 2)
    await insertDue(count / 2, { handler: 'other', begun: true })
    const workers = await Promise.all(Array.from({ length: 8 }, worker))
    const taken: string[] = []
    let idle = 0
    await Promise.all(
      workers.map(async ({ lease }) => {
        for (;;) {
          const { leased, locked } = await lease(['flood', 'other'], 50)
          taken.push(...leased.map(({ id }) => id))
          if (leased.length === 0 && locked > 0 && taken.length < count - 8 * 50) idle++
          if (leased.length === 0 && locked === 0) return
        }
      }),
    )
    expect([taken.length, new Set(taken).size]).toEqual([count, count])
    // At the end there are fewer than eight workers want. Before, one that is slow may find all of them taken.
    expect(idle).toBeLessThan(count / 50 / 8)
  })
})

describe('the time until the next is due', () => {
  it('is that of the first in any range', async () => {
    const { store } = await worker()
    const next = () => store.nextDue(['a', 'b'])
    expect(await next()).toBeNull()
    await insertDue(3, { handler: 'a' })
    expect(await next()).toBeNull()
    await insertDue(1, { handler: 'b', since: -3600 })
    await insertDue(1, { handler: 'a', begun: true, priority: 3, since: -60 })
    await insertDue(1, { handler: 'c', since: -1 })
    expect(await next()).toSatisfy((ms: number) => ms > 50_000 && ms < 61_000)
  })

  it('is null if no process knows the handler', async () => {
    const { store } = await worker()
    await insertDue(1, { handler: randomUUID(), since: -60 })
    expect(await store.nextDue(['a'])).toBeNull()
  })
})

describe('an execution whose process died', () => {
  /** Leases it in a process that then dies, as often as is said; `records`: what each attempt recorded. */
  async function dies(records: boolean[], maxAttempts: number) {
    await insertDue(1)
    await database.pool.query('update pawl.wakeups set max_attempts = $1', [maxAttempts])
    for (const [n, recorded] of records.entries()) {
      const { store, owner } = await worker()
      const { leased } = await store.leaseDue(['flood'], 1, [])
      if (leased.length === 0) return { parkedAt: n + 1 }
      const [{ id, incarnation, attempt }] = leased as AttemptRef[] as [AttemptRef]
      const entry = { name: `step ${n}`, occurrence: 1, position: n, kind: 'step' as const }
      const result = { output: null, error: null, tookMs: 1, completed: true, onlyIfCurrent: true }
      const steps = new StepStore(new NodePostgres(database.pool, 10_000, false), 'pawl', owner)
      if (recorded) await steps.record({ id, incarnation, attempt, ...entry, ...result })
      await database.pool.query('update pawl.processes set expires_at = pawl.now() where id = $1', [
        owner,
      ])
      await database.pool.query('update pawl.wakeups set due_at = pawl.now()')
    }
    const { store } = await worker()
    const { leased, parked } = await store.leaseDue(['flood'], 1, [])
    return { leased: leased.length, parked: parked.length }
  }
  const [nothing, something] = [false, true]

  it.each([
    [
      'is parked after so many deaths in a row',
      3,
      [nothing, nothing, nothing],
      { leased: 0, parked: 1 },
    ],
    ['goes on until then', 3, [nothing, nothing], { leased: 1, parked: 0 }],
    [
      'goes on as long as each attempt records something',
      3,
      Array(9).fill(something),
      { leased: 1, parked: 0 },
    ],
    [
      'has all its attempts again once one has recorded something',
      3,
      [nothing, nothing, something, nothing, nothing],
      { leased: 1, parked: 0 },
    ],
    [
      'is parked after so many deaths since then',
      3,
      [nothing, something, nothing, nothing, nothing],
      { leased: 0, parked: 1 },
    ],
  ])('%s', async (_, maxAttempts, records, expected) => {
    expect(await dies(records, maxAttempts)).toEqual(expected)
  })
})
