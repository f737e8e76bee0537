import { randomUUID } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { type Pawl, PawlError } from '../../lib/index.ts'
import type { WaitStore } from '../../lib/store/wait-store.ts'
import { BlockedWaits } from '../../lib/workflow/blocked-waits.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { faultyPool, isStatement, type Mishap } from '../helpers/faulty-pool.ts'
import { freshKey } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

/** The place of an execution in its queue, and what it is blocked by. */
async function placeOf(id: string): Promise<string | null> {
  const { rows } = await database.pool.query(
    'select place from pawl.wakeups where execution_id = $1',
    [id],
  )
  return rows[0]?.place ?? null
}
async function blockedBy(id: string): Promise<string[] | null> {
  const { rows } = await database.pool.query(
    'select blocked_by from pawl.execution_log where id = $1',
    [id],
  )
  return rows[0]?.blocked_by ?? null
}
async function expectNoDrift(): Promise<void> {
  const { rows } = await database.pool.query(
    `select (select sum(abs(held) + abs(waiting))::int from pawl.queues) as queues,
       (select sum(abs(held) + abs(waiting))::int from pawl.lanes) as lanes`,
  )
  expect([rows[0].queues ?? 0, rows[0].lanes ?? 0]).toEqual([0, 0])
}

describe('A child that its parent waits for', () => {
  it("runs in the parent's place, one at a time, so that a full queue does not stand still", async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('family', { concurrency: 2 })
    let running = 0
    let most = 0
    const child = pawl.workflow('child', { queue }, async (execution, n: number) => {
      await execution.step('work', async () => {
        most = Math.max(most, ++running)
        await new Promise((resolve) => setTimeout(resolve, 20))
        running--
      })
      return n * 2
    })
    const parent = pawl.workflow('parent', { queue }, async (_, n: number) => {
      const handles = [await child.start(n), await child.start(n + 1)]
      const results = await Promise.all(handles.map((handle) => handle.result()))
      return results.reduce((a, b) => a + b)
    })
    await pawl.start()
    const handles = await parent.startMany([1, 2, 3].map((input) => ({ input })))
    expect(await Promise.all(handles.map((handle) => handle.result()))).toEqual([6, 10, 14])
    expect(most).toBeLessThanOrEqual(2)
    await expectNoDrift()
  })

  it('runs in the place of a grandparent, and of a parent of the same key', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('generations', { concurrency: 1, concurrencyPerKey: 1 })
    const grandchild = pawl.workflow('grandchild', { queue }, () => 'found')
    const child = pawl.workflow('in no queue', async () =>
      (await grandchild.start(undefined, { queueKey: 'k' })).result(),
    )
    const top = pawl.workflow('top', { queue }, async () => (await child.start(undefined)).result())
    await pawl.start()
    const handle = await top.start(undefined, { queueKey: 'k' })
    expect(await handle.result()).toBe('found')
    await expectNoDrift()
  })

  it('that arrives later runs in the place as well', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('later', { concurrency: 1 })
    const child = pawl.workflow('late child', { queue }, () => 'here')
    const parent = pawl.workflow('early parent', { queue }, async () =>
      (await child.start(undefined, { delay: 700 })).result(),
    )
    await pawl.start()
    expect(await (await parent.start(undefined)).result()).toBe('here')
    await expectNoDrift()
  })

  it('gives the place back before the parent goes on, also if the parent waits for more', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('strict', { concurrency: 1 })
    const order: string[] = []
    const child = pawl.workflow('slow child', { queue }, async (execution) => {
      await execution.step('begin', () => void order.push('child begins'))
      await execution.signal('finish')
      await execution.step('end', () => void order.push('child ends'))
    })
    const parent = pawl.workflow('hasty parent', { queue }, async (execution) => {
      const handle = await child.start(undefined, { key: 'slow' })
      const first = await Promise.race([
        handle.result().then(() => 'child'),
        execution.signal('hurry').then(() => 'hurry'),
      ])
      await execution.step('go on', () => void order.push('parent goes on'))
      return first
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    const { id } = child.handle('slow')
    await waitFor('the child to begin', () => order.length === 1)
    expect(await placeOf(handle.id)).toBe('lent')
    expect(await blockedBy(handle.id)).toEqual([id])
    await handle.signal('hurry')
    await new Promise((resolve) => setTimeout(resolve, 600))
    expect(order).toEqual(['child begins'])
    await child.handle('slow').signal('finish')
    await handle.result()
    expect(order).toEqual(['child begins', 'child ends', 'parent goes on'])
    await expectNoDrift()
  })

  it('keeps the place that its cancelled parent had lent', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('orphans', { concurrency: 1 })
    const child = pawl.workflow('stubborn', { queue }, async (execution) => {
      try {
        await execution.signal('never')
      } finally {
        await new Promise((resolve) => setTimeout(resolve, 300))
      }
    })
    const parent = pawl.workflow('cancelled', { queue }, async () =>
      (await child.start(undefined, { key: 'orphan' })).result(),
    )
    const next = pawl.workflow('next', { queue }, () => 'next')
    await pawl.start()
    const handle = await parent.start(undefined)
    await waitFor('the loan', async () => (await placeOf(handle.id)) === 'lent')
    const after = await next.start(undefined)
    await handle.cancel()
    await app.until(handle.id, 'cancelled')
    expect(await after.result()).toBe('next')
    await app.until(child.handle('orphan').id, 'cancelled')
    await waitFor('the counts', () =>
      expectNoDrift().then(
        () => true,
        () => false,
      ),
    )
  })
})

describe('A circle', () => {
  const isDeadlock = (error: unknown) => error instanceof PawlError && error.code === 'deadlock'

  it('of one that waits for itself ends with an error, for good', async () => {
    const pawl = app.pawl()
    let attempts = 0
    const undone: string[] = []
    const self = pawl.workflow('narcissus', async (execution) => {
      attempts++
      await execution.step('look', () => 1, { compensate: () => void undone.push('look') })
      await self.handle('mirror').result()
    })
    await pawl.start()
    const handle = await self.start(undefined, { key: 'mirror' })
    await expect(handle.result()).rejects.toMatchObject({
      cause: {
        code: 'deadlock',
        message: expect.stringContaining(
          'workflow narcissus "mirror" waits for workflow narcissus "mirror"',
        ),
      },
    })
    expect(undone).toEqual(['look'])
    expect(attempts).toBeLessThanOrEqual(3)
  })

  it('of two workflows ends the wait of the younger, which may catch it', async () => {
    const pawls = [app.pawl(), app.pawl()]
    const [first, second] = pawls.map((pawl: Pawl) => {
      const older = pawl.workflow('older', async (): Promise<string> => {
        await younger.start(undefined, { key: 'y' })
        return `older and ${await younger.handle('y').result()}`
      })
      const younger = pawl.workflow('younger', async (execution): Promise<string> => {
        try {
          return await older.handle('o').result()
        } catch (error) {
          await execution.step('after', () => 1)
          return isDeadlock(error) ? 'caught' : String(error)
        }
      })
      return { older, younger }
    })
    await Promise.all(pawls.map((pawl) => pawl.start()))
    await first!.older.start(undefined, { key: 'o' })
    expect(await second!.older.handle('o').result()).toBe('older and caught')
  })

  it('of two objects ends as well, and both keys go on', async () => {
    const pawl = app.pawl()
    type Ask = { other: string; back?: boolean }
    const node = pawl.object('node', {
      handlers: {
        ask: async (execution, { other, back }: Ask): Promise<string> => {
          await execution.step('begin', () => 1)
          if (back) return 'answered'
          await execution.sleep(50)
          try {
            return await node.of(other).ask({ other: execution.objectKey, back: true })
          } catch (error) {
            return isDeadlock(error) ? 'deadlock' : String(error)
          }
        },
      },
    })
    await pawl.start()
    const handles = await Promise.all([
      node.of('a').start('ask', { other: 'b' }),
      node.of('b').start('ask', { other: 'a' }),
    ])
    const results = await Promise.all(handles.map((handle) => handle.result()))
    expect(results.sort()).toEqual(['answered', 'deadlock'])
    expect(await node.of('a').ask({ other: 'b', back: true })).toBe('answered')
    expect(await node.of('b').ask({ other: 'a', back: true })).toBe('answered')
  })

  it('is none if one of them waits for a signal or a time as well', async () => {
    const pawl = app.pawl()
    const left = pawl.workflow(
      'left',
      async (execution): Promise<string> =>
        Promise.race([
          right.handle('r').result(),
          execution.signal<string>('free').then((value) => value as string),
        ]),
    )
    const right = pawl.workflow('right', async (): Promise<string> => left.handle('l').result())
    await pawl.start()
    const started = [
      await left.start(undefined, { key: 'l' }),
      await right.start(undefined, { key: 'r' }),
    ]
    await app.until(started[0]!.id, 'waiting')
    await app.until(started[1]!.id, 'waiting')
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(await app.status(started[1]!.id)).toBe('waiting')
    expect(await blockedBy(started[1]!.id)).toEqual([started[0]!.id])
    await started[0]!.signal('free', 'freed')
    expect(await started[1]!.result()).toBe('freed')
  })

  it('in a full queue ends, also if the last one to begin had lent its place', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('narrow circle', { concurrency: 2 })
    const third = pawl.workflow('third', { queue }, async (execution): Promise<string> => {
      await execution.step('begin', () => 1)
      return first.handle('1').result()
    })
    const first = pawl.workflow('first', { queue }, async (): Promise<string> => {
      return second.handle('2').result()
    })
    const second = pawl.workflow('second', { queue }, async (): Promise<string> => {
      return third.handle('3').result()
    })
    await pawl.start()
    // The one that begins last is older than the one whose place it gets.
    const handles = [
      await first.start(undefined, { key: '1' }),
      await third.start(undefined, { key: '3', delay: 400 }),
      await second.start(undefined, { key: '2' }),
    ]
    const results = await Promise.allSettled(
      handles.map((handle) => handle.result({ timeout: '10s' })),
    )
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(results).not.toContainEqual(
      expect.objectContaining({ reason: expect.objectContaining({ code: 'result-timed-out' }) }),
    )
    await expectNoDrift()
  })

  it('is found by whoever waits last, of many that begin at once', async () => {
    const pawl = app.pawl({ workers: { concurrency: 50 } })
    const run = freshKey()
    const ring = pawl.workflow('ring', async (_, { n, of }: { n: number; of: number }) => {
      try {
        await ring.handle(`${run} ${(n + 1) % of}`).result()
        return 'ended'
      } catch (error) {
        return isDeadlock(error) ? 'deadlock' : `failed: ${error}`
      }
    })
    await pawl.start()
    const of = 12
    const handles = await ring.startMany(
      Array.from({ length: of }, (_, n) => ({ input: { n, of }, options: { key: `${run} ${n}` } })),
    )
    const results = await Promise.all(handles.map((handle) => handle.result()))
    expect(results.filter((result) => result === 'deadlock').length).toBe(1)
    expect(results.filter((result) => result === 'ended').length).toBe(of - 1)
  })

  /** A process in whose pool something goes wrong, with two workflows that wait for each other. */
  async function startCircle(mishap: (sql: string) => Mishap) {
    const { pool, statements } = faultyPool(database.url, mishap)
    const [key, other] = [freshKey(), freshKey()]
    const define = (pawl: Pawl) => {
      const half = pawl.workflow('half', async (_, next: string): Promise<string> => {
        try {
          await half.handle(next).result()
          return 'ended'
        } catch (error) {
          if (isDeadlock(error)) return 'deadlock'
          throw error
        }
      })
      return half
    }
    const pawl = app.pawl({ database: pool })
    const half = define(pawl)
    await pawl.start()
    const handles = await half.startMany([
      { input: other, options: { key } },
      { input: key, options: { key: other } },
    ])
    const results = async (of = handles) =>
      (await Promise.all(of.map((handle) => handle.result({ timeout: '20s' })))).sort()
    return { pawl, define, handles, results, statements, keys: [key, other] }
  }
  const isWalk = (sql: string) => sql.includes('visited (id)')

  it('ends although the database is away when it closes', async () => {
    let isAway = true
    let lost = 0
    const circle = await startCircle((sql) => {
      if (!isAway || !isWalk(sql)) return undefined
      lost++
      return 'lose the statement'
    })
    await waitFor('both to look in vain', () => lost >= 8)
    await new Promise((resolve) => setTimeout(resolve, 2000))
    isAway = false
    expect(await circle.results()).toEqual(['deadlock', 'ended'])
  })

  it('ends although the replies are lost to those that began to wait', async () => {
    let lost = 0
    const circle = await startCircle((sql) =>
      isStatement.suspend(sql) && ++lost <= 2 ? 'lose the reply' : undefined,
    )
    expect(await circle.results()).toEqual(['deadlock', 'ended'])
    expect(lost).toBeGreaterThan(1)
  })

  it('ends although the process dies in which it closed, before it has looked', async () => {
    let walks = 0
    const circle = await startCircle((sql) =>
      isWalk(sql) ? { before: new Promise(() => void walks++) } : undefined,
    )
    await Promise.all(circle.handles.map(({ id }) => app.until(id, 'waiting')))
    await waitFor('the looks', () => walks === 2)
    const pawl = app.pawl()
    const half = circle.define(pawl)
    await pawl.start()
    expect(await circle.results(circle.keys.map((key) => half.handle(key)))).toEqual([
      'deadlock',
      'ended',
    ])
  })
})

describe('A sweep', () => {
  afterEach(() => vi.restoreAllMocks())

  it('looks at a hundred once a minute, and in turn at all', async () => {
    const ids = Array.from({ length: 250 }, () => randomUUID()).sort()
    const looked: string[] = []
    const store = {
      listWaiting: async (after: string, limit: number) =>
        ids.filter((id) => id > after).slice(0, limit),
      walk: async (id: string) => {
        looked.push(id)
        return []
      },
    } as unknown as WaitStore
    const waits = new BlockedWaits({
      ...{ store, logger: silent, announce() {}, isStopped: () => false },
    })
    const began = performance.now()
    for (let minute = 0; minute < 3; minute++) {
      vi.spyOn(performance, 'now').mockReturnValue(began + minute * 60_001)
      await Promise.all([waits.sweep(), waits.sweep()])
      await waits.sweep()
      expect(looked).toHaveLength(100 * (minute + 1))
      expect(new Set(looked).size).toBe(Math.min(250, looked.length))
    }
  })
})
