import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Database } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import type { AttemptRef } from '../../lib/store/execution-store.ts'
import { ExecutionStore } from '../../lib/store/execution-store.ts'
import {
  type Advance,
  type Lane,
  type QueueLimits,
  QueueStore,
} from '../../lib/store/queue-store.ts'
import { processStatements } from '../../lib/store/sql/process-statements.ts'
import { WaitStore } from '../../lib/store/wait-store.ts'
import { WakeupStore } from '../../lib/store/wakeup-store.ts'
import { WorkflowStore } from '../../lib/store/workflow-store.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { completionOf, newExecution } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const { pool } = database
const HANDLER = 'workflow job'
const NONE: QueueLimits = {
  ...{ concurrency: null, concurrencyPerKey: null, rate: null, maxDepth: null },
}

/** The stores of one process. */
class Side {
  readonly owner = randomUUID()
  readonly queues: QueueStore
  readonly workflows: WorkflowStore
  readonly store: ExecutionStore
  readonly wakeups: WakeupStore
  /** What may be let in and was not seen. */
  readonly open: Lane[] = []

  constructor(readonly db: Database) {
    this.queues = new QueueStore(db, 'pawl')
    this.workflows = new WorkflowStore(db, 'pawl', this.owner, 15_000)
    this.store = new ExecutionStore(db, 'pawl', this.owner, 15_000)
    this.wakeups = new WakeupStore(db, 'pawl', this.owner, 15_000)
    const onAdvance = ({ queue, lane, hasMore }: Advance) =>
      void (hasMore && this.open.push({ queue, lane }))
    for (const store of [this.workflows, this.store, this.wakeups]) store.onAdvance = onAdvance
  }

  /** Makes the process alive, and one that runs these handlers of the queue. */
  async live(handlers = [HANDLER], queue = 'q'): Promise<void> {
    const values = [this.owner, null, 'host', 1, '0', 60_000, JSON.stringify({ [queue]: handlers })]
    await this.db.query(processStatements('"pawl"').register, values)
  }

  async start(lane: string | null, other: Parameters<typeof newExecution>[0] = {}) {
    const execution = newExecution({ queue: 'q', lane, handler: HANDLER, name: 'job', ...other })
    const started = await this.workflows.start(execution)
    if (started?.kind !== 'started') throw new Error('not started')
    return started.ref
  }

  end(ref: AttemptRef): Promise<unknown> {
    return this.store.complete({ ...completionOf(ref, '1'), isQueued: true })
  }

  /** Lets in what was left open. */
  async settle(): Promise<void> {
    while (this.open.length > 0) await this.queues.promote(this.open.splice(0))
  }
}

const own = new Side(new NodePostgres(pool, 30_000, false))

const clients: pg.Pool[] = []
afterEachTest(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end()))
})

/** A process with connections of its own. */
function anotherProcess(max = 3, idleTimeoutMillis = 10_000): { side: Side; client: pg.Pool } {
  const client = new pg.Pool({ connectionString: database.url, max, idleTimeoutMillis })
  clients.push(client)
  return { side: new Side(new NodePostgres(client, 30_000, false)), client }
}

/** A process whose statements run in a transaction that the test ends. */
async function transaction(): Promise<{ side: Side; client: pg.Pool }> {
  const other = anotherProcess(1, 0)
  await other.client.query('begin')
  return other
}

async function define(limits: Partial<QueueLimits>): Promise<void> {
  await new QueueStore(own.db, 'pawl').defineQueues(
    [{ name: 'q', limits: { ...NONE, ...limits } }],
    true,
  )
}

beforeEach(async () => {
  await pool.query(
    'truncate pawl.wakeups, pawl.queues, pawl.lanes, pawl.executions, pawl.processes, pawl.signals',
  )
  own.open.splice(0)
  await own.live()
})

/** The ids of the executions in a place, in the order of their arrival. */
async function at(place: string): Promise<string[]> {
  const { rows } = await pool.query(
    'select execution_id from pawl.wakeups where place = $1 order by enqueued_at',
    [place],
  )
  return rows.map(({ execution_id }) => execution_id)
}

const counts = async () => {
  const { rows } = await pool.query('select held, waiting, backlog from pawl.queues')
  return rows[0]
}
const lanes = async () => {
  const { rows } = await pool.query('select key, held, waiting from pawl.lanes order by key')
  return rows.map(({ key, held, waiting }) => `${key} ${held} ${waiting}`)
}
/** Compares all counts with the executions. */
const corrections = async () => (await own.queues.mend('q')).corrections

describe('A queue', () => {
  it('lets in as many as it may hold, and the next by priority as one ends', async () => {
    await define({ concurrency: 2 })
    const [a, b] = [await own.start(null), await own.start(null)]
    const low = await own.start(null)
    const high = await own.start(null, { priority: 9 })
    expect(await at('in')).toEqual([a.id, b.id])
    expect(await counts()).toMatchObject({ held: 2, waiting: 2 })
    await own.end(a)
    expect(await at('in')).toEqual([b.id, high.id])
    await own.end(high)
    expect(await at('in')).toEqual([b.id, low.id])
    await own.end(b)
    await own.end(low)
    expect(await counts()).toMatchObject({ held: 0, waiting: 0 })
    expect(own.open).toEqual([])
  })

  it('lets in a batch up to its limits, each key in the order of arrival', async () => {
    await define({ concurrency: 5, concurrencyPerKey: 2 })
    const refs = await Promise.all(
      Array.from({ length: 12 }, (_, i) => own.start(`key ${i % 2}`, { priority: i % 3 })),
    )
    const ids = refs.map(({ id }) => id)
    expect(await at('in')).toEqual(ids.slice(0, 4))
    expect(await lanes()).toEqual(['key 0 2 4', 'key 1 2 4'])
    for (const ref of refs) {
      await own.end(ref)
      expect((await at('in')).length).toBeLessThanOrEqual(4)
      expect(await corrections()).toEqual([])
    }
    expect(await counts()).toMatchObject({ held: 0, waiting: 0 })
  })

  it('keeps the lane of one that waits for the queue', async () => {
    await define({ concurrency: 1, concurrencyPerKey: 1 })
    const [a, b, second] = [await own.start('a'), await own.start('b'), await own.start('b')]
    expect(await at('queue')).toEqual([b.id])
    expect(await at('key')).toEqual([second.id])
    await own.end(a)
    expect(await at('in')).toEqual([b.id])
    await own.end(b)
    expect(await at('in')).toEqual([second.id])
    expect(await lanes()).toEqual(['a 0 0', 'b 1 0'])
  })

  it('lets in only what a live process can run', async () => {
    await define({ concurrency: 2 })
    const old = await own.start(null, { handler: 'workflow job@old' })
    expect(await at('queue')).toEqual([old.id])
    const ref = await own.start(null)
    // It came behind one that nobody runs; the next look lets it in.
    expect(await own.queues.promote([{ queue: 'q', lane: null }])).toMatchObject({ entered: 1 })
    expect(await at('in')).toEqual([ref.id])
    expect(await own.queues.promote([{ queue: 'q', lane: null }])).toMatchObject({ entered: 0 })
    await anotherProcess().side.live(['workflow job@old'])
    expect(await own.queues.promote([{ queue: 'q', lane: null }])).toMatchObject({ entered: 1 })
    expect(await corrections()).toEqual([])
  })

  it('lets in delayed executions, and those of a transaction of the app, when they are due', async () => {
    await define({ concurrency: 1, maxDepth: 10 })
    const first = await own.start(null)
    const delayed = await own.start(null, { delayMs: 50 })
    expect(await counts()).toEqual({ held: 1, waiting: 0, backlog: 2 })
    const client = await pool.connect()
    await client.query('begin')
    const inTransaction = newExecution({ queue: 'q', handler: HANDLER, name: 'job' })
    const run = async (sql: string, values: readonly (string | null)[]) =>
      (await client.query(sql, [...values])).rows
    await own.workflows.startInTransaction(run, inTransaction)
    // Whoever starts and ends meanwhile does not wait for the app.
    const other = await own.start(null)
    await own.end(first)
    expect(await at('in')).toEqual([other.id])
    await client.query('commit')
    client.release()
    await waitFor('the delayed one to be due', async () => {
      const [look] = await own.queues.look([{ queue: 'q', handler: HANDLER }])
      return (look?.arrivesMs ?? 1) <= 0
    })
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(await own.queues.arrive('q', [HANDLER], 10)).toEqual({ count: 2, wanted: [] })
    expect(await at('queue')).toEqual(expect.arrayContaining([delayed.id, inTransaction.id]))
    expect(await own.queues.arrive('q', [HANDLER], 10)).toEqual({ count: 0, wanted: [] })
    await own.end(other)
    expect(await at('in')).toHaveLength(1)
    expect(await corrections()).toEqual([])
  })

  it('begins no more within a period than its rate limit, and says when it will', async () => {
    await define({ rate: { limit: 2, periodMs: 60_000 } })
    const [a] = [await own.start(null), await own.start(null), await own.start(null)]
    expect(await at('in')).toHaveLength(2)
    await own.end(a!)
    expect(await at('in')).toHaveLength(1)
    const [look] = await own.queues.look([{ queue: 'q', handler: HANDLER }])
    expect(look).toMatchObject({ isOpen: false })
    expect(look!.rateLimitedMs).toBeGreaterThan(50_000)
    expect(look!.rateLimitedMs).toBeLessThanOrEqual(60_000)
    await pool.query(`update pawl.queues set rate = jsonb_set(rate, '{0,0}', '1')`)
    expect((await own.queues.look([{ queue: 'q', handler: HANDLER }]))[0]).toMatchObject({
      isOpen: true,
      rateLimitedMs: null,
    })
    await own.queues.promote([{ queue: 'q', lane: null }])
    expect(await at('in')).toHaveLength(2)
  })

  it('remembers a high rate in few entries, and never lets in more', async () => {
    const { rows } = await pool.query(`
      with recursive steps (i, rate, used) as (
        select 0, '[]'::jsonb, 0
        union all
        select i + 1, pawl.rate_add(rate, timestamptz '2030-01-01' + i * interval '1 ms', 600, 300, 1),
          pawl.rate_used(rate, timestamptz '2030-01-01' + (i - 600) * interval '1 ms')
        from steps where i < 900)
      select max(jsonb_array_length(rate)) as entries, max(used) as used, min(used) filter (where i > 610) as least
      from steps`)
    // One a millisecond: the rule sees those of the last 600 ms, and at most a two-hundredth of a period more.
    expect(rows[0].entries).toBeLessThanOrEqual(201)
    expect(rows[0].used).toBeLessThanOrEqual(603)
    expect(rows[0].least).toBeGreaterThanOrEqual(599)
  })

  it('counts what has not begun as its depth, without looking at it', async () => {
    await define({ concurrency: 1, maxDepth: 100 })
    const refs = [await own.start(null), await own.start(null), await own.start(null)]
    await own.start(null, { delayMs: 60_000 })
    expect(await own.queues.depth('q')).toBe(4)
    await own.wakeups.leaseDue([HANDLER], 10, [])
    await own.queues.begin('q', 1)
    expect(await own.queues.depth('q')).toBe(3)
    await own.workflows.cancel(refs[2]!.id)
    expect(await own.queues.depth('q')).toBe(2)
    // Cancelled, it does not count as one that has waited.
    const { leased } = await own.wakeups.leaseDue([HANDLER], 10, [])
    expect(leased.map(({ id, begins }) => [id, begins])).toEqual([[refs[2]!.id, false]])
    expect(await corrections()).toEqual([])
    expect(await own.queues.depth('q')).toBe(2)
    expect(await Promise.all([1, 2, 3].map(() => own.queues.depth('q')))).toEqual([2, 3, 4])
  })

  it('gives the place of a parked execution to the next one, however it was parked', async () => {
    await define({ concurrency: 1, concurrencyPerKey: 1 })
    const [a, b, c] = [await own.start('k'), await own.start('k'), await own.start('k')]
    const lease = async () => (await own.wakeups.leaseDue([HANDLER], 1, [])).leased[0]!
    const leased = await lease()
    expect(leased).toMatchObject({ id: a!.id, isQueued: true })
    await own.store.release(leased, 'parked')
    expect(await at('in')).toEqual([b!.id])
    // Its attempts are used up.
    await pool.query('update pawl.wakeups set max_attempts = 0 where execution_id = $1', [b!.id])
    const { parked } = await own.wakeups.leaseDue([HANDLER], 1, [])
    expect(parked.map(({ id }) => id)).toEqual([b!.id])
    expect(await at('in')).toEqual([c!.id])
    await own.store.releaseStuck(a!.id)
    expect(await at('arriving')).toEqual([a!.id])
    await own.queues.arrive('q', [HANDLER], 10)
    expect(await at('key')).toEqual([a!.id])
    expect(await corrections()).toEqual([])
  })

  it('wakes who waits for one that ends, also if that is in the queue and part of no loan', async () => {
    await define({ concurrency: 2 })
    const [waiter, child] = [await own.start(null), await own.start(null)]
    await own.workflows.subscribeToEnd(child.id, waiter.id)
    await pool.query(`update pawl.wakeups set due_at = 'infinity' where execution_id = $1`, [
      waiter.id,
    ])
    await own.end(child)
    const { rows } = await pool.query('select due_at <= pawl.now() as is_due from pawl.wakeups')
    expect(rows).toEqual([{ is_due: true }])
  })

  it('is left by what is cancelled, wherever it waits', async () => {
    await define({ concurrency: 1, concurrencyPerKey: 1 })
    const [a, b] = [await own.start('a'), await own.start('b')]
    const behind = await own.start('b')
    const last = await own.start('b')
    await own.workflows.cancel(behind.id)
    expect(await lanes()).toEqual(['a 1 0', 'b 1 1'])
    // It had the lane, which the next one gets.
    await own.workflows.cancel(b.id)
    expect(await at('queue')).toEqual([last.id])
    await own.workflows.cancel(a.id)
    expect(await at('in')).toEqual([a.id])
    await own.end(a)
    expect(await at('in')).toEqual([last.id])
    expect(await corrections()).toEqual([])
  })
})

describe('Two at once', () => {
  const waitForLock = () =>
    waitFor('the other to wait', async () => {
      const { rows } = await pool.query('select from pg_locks where not granted')
      return rows.length > 0
    })

  it('do not let in the same execution, nor more than there is room for', async () => {
    await define({ concurrency: 2 })
    const [a, b] = [await own.start(null), await own.start(null)]
    await own.start(null)
    await own.start(null)
    await own.start(null)
    const first = await transaction()
    await first.side.end(a)
    const second = own.end(b)
    await waitForLock()
    await first.client.query('commit')
    await second
    await own.settle()
    expect(await at('in')).toHaveLength(2)
    expect(await counts()).toMatchObject({ held: 2, waiting: 1 })
    expect(await corrections()).toEqual([])
  })

  it('that start and end in one lane leave nobody behind', async () => {
    await define({ concurrencyPerKey: 1 })
    const a = await own.start('k')
    const starting = await transaction()
    const b = await starting.side.start('k')
    const ending = own.end(a)
    await waitForLock()
    await starting.client.query('commit')
    await ending
    // It was committed after the snapshot of the end, which knew of it by the count.
    expect(own.open).toEqual([{ queue: 'q', lane: 'k' }])
    await own.settle()
    expect(await at('in')).toEqual([b.id])
    expect(await lanes()).toEqual(['k 1 0'])
  })

  it('that create one lane both count', async () => {
    await define({ concurrencyPerKey: 1 })
    const first = await transaction()
    const a = await first.side.start('k')
    const second = own.start('k')
    await waitForLock()
    await first.client.query('commit')
    const b = await second
    expect(await at('in')).toEqual([a.id])
    expect(await at('key')).toEqual([b.id])
    await own.end(a)
    await own.settle()
    expect(await at('in')).toEqual([b.id])
  })

  it('of which one cancels what the other lets in, count it once', async () => {
    await define({ concurrency: 1, concurrencyPerKey: 1 })
    const [a, b] = [await own.start('k'), await own.start('k')]
    const ending = await transaction()
    await ending.side.end(a)
    const cancelling = own.workflows.cancel(b.id)
    await waitForLock()
    await ending.client.query('commit')
    await cancelling
    expect(await at('in')).toEqual([b.id])
    expect(await corrections()).toEqual([])
  })

  describe.each([{ concurrency: 1 }, { concurrencyPerKey: 1 }])(
    'in a queue with %j, of which one has lent its place to the other,',
    (limits) => {
      /** The one that has lent its place, and the one that has it; one more waits. */
      const lend = async () => {
        await define(limits)
        const [lender, borrower] = [await own.start('k'), await own.start('k')]
        const next = await own.start('k')
        await pool.query(`update pawl.wakeups set due_at = 'infinity' where execution_id = $1`, [
          lender.id,
        ])
        expect(await new WaitStore(own.db, 'pawl').lend(lender.id, borrower.id)).toBe(true)
        expect([await at('lent'), await at('in')]).toEqual([[lender.id], [borrower.id]])
        return { lender, borrower, next }
      }
      /** @param pair what ends first, uncommitted, and what ends meanwhile */
      const endAtOnce = async (pair: readonly AttemptRef[]) => {
        const ending = await transaction()
        await ending.side.end(pair[0]!)
        const second = own.end(pair[1]!)
        await waitForLock()
        await ending.client.query('commit')
        await second
        own.open.push(...ending.side.open.splice(0))
        await own.settle()
      }

      it('end: the place goes to the next one', async () => {
        const { lender, borrower, next } = await lend()
        await endAtOnce([lender, borrower])
        expect(await at('in')).toEqual([next.id])
        expect(await corrections()).toEqual([])
      })

      it('end in one statement: the place goes to the next one', async () => {
        const { lender, borrower, next } = await lend()
        await Promise.all([own.end(next), own.end(lender), own.end(borrower)])
        await own.settle()
        expect(await corrections()).toEqual([])
        const another = await own.start('k')
        expect(await at('in')).toEqual([another.id])
      })

      /** Three, each of which has lent its place to the next one. */
      const lendTwice = async () => {
        const { lender, borrower, next } = await lend()
        await pool.query(`update pawl.wakeups set due_at = 'infinity' where execution_id = $1`, [
          borrower.id,
        ])
        expect(await new WaitStore(own.db, 'pawl').lend(borrower.id, next.id)).toBe(true)
        expect(await corrections()).toEqual([])
        return [lender, borrower, next] as const
      }
      const orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
      ]

      it.each(orders)('and that one to a third, end in the order %i, %i, %i', async (...order) => {
        const three = await lendTwice()
        const after = await own.start('k')
        const left = [0, 1, 2]
        for (const n of order) {
          await own.end(three[n]!)
          left.splice(left.indexOf(n), 1)
          expect(await corrections()).toEqual([])
          // The last one that is left has the place; the others have lent it.
          const ids = left.map((n) => three[n]!.id)
          expect(await at('lent')).toEqual(ids.slice(0, -1))
          expect(await at('in')).toEqual(ids.length > 0 ? ids.slice(-1) : [after.id])
        }
      })

      it.each([
        [0, 1],
        [1, 2],
        [0, 2],
      ])('and that one to a third: %i and %i end in one statement', async (...pair) => {
        const three = await lendTwice()
        const after = await own.start('k')
        // The first statement is sent at once, and alone.
        const first = own.workflows.cancel(randomUUID())
        const other = await own.start('z')
        await Promise.all([first, own.end(other), ...pair.map((n) => own.end(three[n]!))])
        await own.settle()
        expect(await corrections()).toEqual([])
        const [left] = three.filter((_, n) => !pair.includes(n))
        expect([await at('lent'), await at('in')]).toEqual([[], [left!.id]])
        await own.end(left!)
        await own.settle()
        expect(await at('in')).toEqual([after.id])
      })

      it('end in the other order: the place goes to the next one', async () => {
        const { lender, borrower, next } = await lend()
        await endAtOnce([borrower, lender])
        expect(await at('in')).toEqual([next.id])
        expect(await corrections()).toEqual([])
      })
    },
  )

  it('that handle the same arrivals count them once', async () => {
    await define({ concurrency: 1 })
    const run = async (sql: string, values: readonly (string | null)[]) =>
      (await pool.query(sql, [...values])).rows
    for (let i = 0; i < 3; i++) {
      await own.workflows.startInTransaction(run, newExecution({ queue: 'q', handler: HANDLER }))
    }
    const first = await transaction()
    await first.side.queues.arrive('q', [HANDLER], 10)
    const second = own.queues.arrive('q', [HANDLER], 10)
    await waitForLock()
    await first.client.query('commit')
    expect(await second).toEqual({ count: 0, wanted: [] })
    expect(await counts()).toMatchObject({ held: 1, waiting: 2 })
  })
})

describe('Counts', () => {
  it('that are wrong are corrected, lane by lane, and reported', async () => {
    await define({ concurrency: 5, concurrencyPerKey: 1 })
    const [a] = [await own.start('a'), await own.start('a'), await own.start('b')]
    await pool.query('delete from pawl.wakeups where execution_id = $1', [a!.id])
    expect(await corrections()).toEqual(
      expect.arrayContaining([
        { queue: 'q', lane: null, held: -1, waiting: 0 },
        { queue: 'q', lane: 'a', held: -1, waiting: 0 },
      ]),
    )
    const { corrections: none, open } = await own.queues.mend('q')
    expect({ none, open }).toEqual({ none: [], open: [{ queue: 'q', lane: 'a' }] })
    await own.queues.promote(open)
    expect(await at('in')).toHaveLength(2)
  })

  it('of a queue that gets limits later are set, and those it loses let everybody in', async () => {
    await define({})
    await Promise.all([1, 2, 3].map(() => own.start('k')))
    await define({ concurrency: 4, concurrencyPerKey: 1 })
    await own.queues.mend('q')
    expect(await counts()).toMatchObject({ held: 3, waiting: 0 })
    expect(await lanes()).toEqual(['k 3 0'])
    const late = await own.start('k')
    expect(await at('key')).toEqual([late.id])
    await define({})
    const { open } = await own.queues.mend('q')
    await own.queues.promote(open)
    expect(await at('in')).toHaveLength(4)
  })

  it('of lanes are not needed any more once the limit of each key is gone', async () => {
    await define({ concurrencyPerKey: 1 })
    const [a, b] = [await own.start('k'), await own.start('k')]
    await define({})
    await own.queues.promote((await own.queues.mend('q')).open)
    const c = await own.start('k')
    expect(await at('in')).toHaveLength(3)
    // In one commit with those that the lane has counted, one that it has not.
    await Promise.all([a, b, c].map((ref) => own.end(ref!)))
    await own.queues.mend('q')
    expect(await lanes()).toEqual([])
    await define({ concurrencyPerKey: 1 })
    await own.start('k')
    expect(await lanes()).toEqual(['k 1 0'])
  })

  it('are checked by one process at a time', async () => {
    await define({ concurrency: 5 })
    const claims = await Promise.all([1, 2, 3].map(() => own.queues.claimCheck(['q'], 60_000)))
    expect(claims.flat()).toEqual(['q'])
  })

  it('of lanes in which nothing happens any more are deleted', async () => {
    await define({ concurrencyPerKey: 1 })
    await own.end(await own.start('old'))
    await own.start('held')
    await pool.query(`update pawl.lanes set changed_at = changed_at - interval '2 minutes'`)
    await own.end(await own.start('new'))
    await own.queues.mend('q')
    expect(await lanes()).toEqual(['held 1 0', 'new 0 0'])
  })
})

describe('Under processes that start, run, park, cancel and end at random', () => {
  it.each([
    { concurrency: 3 },
    { concurrencyPerKey: 1 },
    { concurrency: 4, concurrencyPerKey: 2, maxDepth: 1000 },
  ])('%o holds at every moment, nobody is left behind, and no count drifts', async (limits) => {
    await define(limits)
    const sides = [1, 2, 3].map(() => anotherProcess().side)
    for (const side of sides) await side.live()
    const total = cases(60, { proof: 1200 })
    let started = 0
    let ended = 0
    let over = false
    const worker = async (side: Side) => {
      while (ended < total) {
        if (started < total && Math.random() < 0.5) {
          started++
          const delayMs = Math.random() < 0.1 ? 5 : 0
          const ref = await side.start(`k${Math.floor(Math.random() * 4)}`, { delayMs })
          if (Math.random() < 0.1) await side.workflows.cancel(ref.id)
        }
        for (const look of await side.queues.look([{ queue: 'q', handler: HANDLER }])) {
          if ((look.arrivesMs ?? 1) <= 0) await side.queues.arrive('q', [HANDLER], 5)
          if (look.isOpen) await side.queues.promote([{ queue: 'q', lane: null }])
        }
        const { leased, parked } = await side.wakeups.leaseDue([HANDLER], 2, [])
        expect(parked).toEqual([])
        for (const one of leased) {
          if (Math.random() < 0.1) {
            await side.store.release(one, 'parked')
            await side.store.releaseStuck(one.id)
          } else if ((await side.store.complete(ending(one))).kind === 'stored') ended++
        }
        await side.settle()
      }
    }
    const watch = async () => {
      while (!over) {
        const { rows } = await pool.query(
          `select lane, count(*)::int as n from pawl.wakeups where place = 'in' group by grouping sets ((lane), ())`,
        )
        for (const { lane, n } of rows) {
          const limit = lane === null ? limits.concurrency : limits.concurrencyPerKey
          expect(n).toBeLessThanOrEqual(limit ?? total)
        }
        expect(await contradictions()).toBe(0)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    const watching = watch()
    await Promise.all([...sides, ...sides].map(worker)).finally(() => {
      over = true
    })
    await watching
    expect(ended).toBe(total)
    expect(await corrections()).toEqual([])
    expect(await counts()).toMatchObject({ held: 0, waiting: 0 })
    expect(new Set((await lanes()).map((lane) => lane.slice(3)))).toEqual(
      new Set(limits.concurrencyPerKey ? ['0 0'] : []),
    )
  })

  const ending = (ref: AttemptRef) => ({ ...completionOf(ref, '1'), isQueued: true })
  const contradictions = async () => {
    const { rows } = await pool.query(
      `select count(*)::int as n from pawl.wakeups w join pawl.executions e on e.id = w.execution_id
       where w.place is not null and w.admitted <> (w.place = 'in')`,
    )
    return rows[0].n
  }
})

describe('The plans, with 50,000 waiting', () => {
  it.each(['never analyzed', 'analyzed'])('read by index when the table was %s', async (when) => {
    await define({ concurrency: 50, concurrencyPerKey: 1, rate: { limit: 50, periodMs: 1000 } })
    await pool.query(
      `insert into pawl.wakeups (execution_id, handler, due_at, max_attempts, admitted, place, queue, lane)
       select gen_random_uuid(), '${HANDLER}', pawl.now(), 3, false, case when n % 20 = 0 then 'queue' else 'key' end,
         'q', 'lane ' || n % 1000
       from generate_series(1, ${cases(20_000, { proof: 50_000 })}) as n`,
    )
    if (when === 'analyzed') await pool.query('analyze pawl.wakeups')
    const plans: string[] = []
    const explained = Object.assign(Object.create(own.db), {
      query: async (sql: string, values: never) => {
        const rows = await own.db.query(`explain ${sql}`, values)
        plans.push(rows.map(([line]) => line).join('\n'))
        return own.db.query(sql, values)
      },
    }) as Database
    const side = new Side(explained)
    await own.queues.mend('q')
    const ref = await side.start('lane x')
    await side.queues.promote([{ queue: 'q', lane: null }])
    await side.queues.promote([{ queue: 'q', lane: 'lane 1' }])
    expect((await at('in')).length).toBe(50)
    await side.end(ref)
    await side.workflows.cancel(ref.id)
    await side.queues.look([{ queue: 'q', handler: HANDLER }])
    await side.queues.arrive('q', [HANDLER], 10)
    await side.queues.depth('q')
    expect(plans).toHaveLength(8)
    for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (wakeups|lanes)/)
    expect(plans[1]).toMatch(/wakeups_in_queue/)
  })
})
