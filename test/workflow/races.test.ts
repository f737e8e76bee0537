import { describe, expect, it } from 'vitest'
import { CancelledError } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { faultyPool, holdFirst, isStatement } from '../helpers/faulty-pool.ts'
import { variants } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

/** A process that only sends things. */
async function outsider() {
  const pawl = app.pawl({ workers: false })
  await pawl.start()
  return pawl
}

const moments = [
  ['before its suspension reaches Postgres', 'before'],
  ['when it is suspended and does not know it yet', 'after'],
] as const

describe.each(moments)('An event that arrives for a workflow %s wakes it:', (_, where) => {
  const suspending = () => {
    const hold = holdFirst(isStatement.suspend, where)
    return { ...hold, pawl: app.pawl({ database: faultyPool(database.url, hold.mishap).pool }) }
  }

  it('a signal', async () => {
    const outside = await outsider()
    const { pawl, reached, release } = suspending()
    const waiting = pawl.workflow('waiting', (execution) => execution.signal('x'))
    await pawl.start()
    const handle = await waiting.start(undefined)
    await reached
    await outside.signal(handle.id, 'x', 'arrived')
    release()
    expect(await handle.result({ timeout: '20s' })).toBe('arrived')
    expect(await app.journal(handle.id)).toEqual(['signal x'])
  })

  it('the end of a child', async () => {
    // The child runs elsewhere: only its parent is held.
    const elsewhere = app.pawl()
    const ending = (pawl: typeof elsewhere) =>
      pawl.workflow('ending', (execution) => execution.signal('end'))
    ending(elsewhere)
    await elsewhere.start()
    const { pawl, reached, release } = suspending()
    const child = ending(app.pawl({ workers: false }))
    const parent = pawl.workflow('parent', async (execution) => {
      const { id } = await execution.step('begin', async () => {
        const outside = await outsider()
        const handle = await ending(outside).start(undefined, { key: execution.key })
        return { id: handle.id }
      })
      expect(id).toBe(child.handle(execution.key).id)
      return child.handle(execution.key).result()
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    await reached
    await elsewhere.signal(child.handle(handle.key).id, 'end', 'ended')
    await app.until(child.handle(handle.key).id, 'done')
    release()
    expect(await handle.result({ timeout: '20s' })).toBe('ended')
  })

  it('its cancellation', async () => {
    const outside = await outsider()
    const { pawl, reached, release } = suspending()
    const undone: string[] = []
    const waiting = pawl.workflow('cancelled', async (execution) => {
      await execution.step('book', () => 1, { compensate: () => undone.push('book') })
      await execution.sleep('1 hour')
    })
    await pawl.start()
    const handle = await waiting.start(undefined)
    await reached
    await outside.cancel(handle.id)
    release()
    await expect(handle.result({ timeout: '20s' })).rejects.toBeInstanceOf(CancelledError)
    expect(undone).toEqual(['book'])
  })
})

describe('A signal and its timeout', () => {
  const define = (pawl: ReturnType<typeof app.pawl>) =>
    pawl.workflow('race', async (execution) => {
      const first = await execution.signal<number>('x', { timeout: 60 })
      return [first ?? 'late', await execution.signal<number>('x')]
    })
  /** The second entry of the wait: the first says since when it waits. */
  const isTimeOut = () => {
    let records = 0
    return (sql: string) => isStatement.record(sql) && ++records === 2
  }

  it('the timeout comes first: the signal is received by the next wait, in every attempt', async () => {
    const hold = holdFirst(isTimeOut(), 'after')
    const pawl = app.pawl({ database: faultyPool(database.url, hold.mishap).pool })
    const race = define(pawl)
    await pawl.start()
    const handle = await race.start(undefined)
    await hold.reached
    await handle.signal('x', 1)
    hold.release()
    expect(await handle.result()).toEqual(['late', 1])
  })

  it('another attempt records the signal first: the attempt that times out adopts it', async () => {
    const hold = holdFirst(isTimeOut(), 'before')
    const stale = app.pawl({
      database: faultyPool(database.url, hold.mishap).pool,
      processTimeout: '10 minutes',
    })
    const race = define(stale)
    await stale.start()
    const handle = await race.start(undefined)
    await hold.reached
    await handle.signal('x', 1)
    await database.pool.query(
      `update pawl.processes set expires_at = 'epoch'; update pawl.wakeups set due_at = 'epoch'`,
    )
    const heir = app.pawl()
    define(heir)
    await heir.start()
    await waitFor('the heir to take it', async () => {
      const sql = `select from pawl.steps where execution_id = $1 and completed_at is not null`
      return (await database.pool.query(sql, [handle.id])).rowCount === 1
    })
    hold.release()
    await waitFor('the stale one to give up', () => stale.engine.busyIds.length === 0)
    await heir.signal(handle.id, 'x', 2)
    expect(await handle.result()).toEqual([1, 2])
    expect(await app.journal(handle.id)).toEqual(['signal x', 'signal x'])
  })

  it('two signals go to two waits, each once, in the order in which they came', async () => {
    const pawl = app.pawl()
    const both = pawl.workflow('both', (execution) =>
      Promise.all([execution.signal('x'), execution.signal('x')]),
    )
    await pawl.start()
    const early = await both.start(undefined, { delay: 60 })
    await early.signal('x', 1)
    await early.signal('x', 2)
    const live = await both.start(undefined)
    await live.signal('x', 1)
    await live.signal('x', 2)
    expect(await Promise.all([early.result(), live.result()])).toEqual([
      [1, 2],
      [1, 2],
    ])
  })

  it('of two signals with one sender id the first one counts', async () => {
    const pawl = app.pawl()
    const one = pawl.workflow('one of two', (execution) => execution.signal('x'))
    await pawl.start()
    const handle = await one.start(undefined, { delay: 60 })
    await handle.signal('x', 'first', { id: 'a' })
    await handle.signal('x', 'second', { id: 'a' })
    expect(await handle.result()).toBe('first')
  })
})

describe('P3 A workflow whose process does not get the reply', () => {
  const lost = [
    'start',
    'record',
    'suspend',
    'takeSignal',
    'subscribe',
    'take',
    'complete',
  ] as const

  it.each(variants(lost, ['start', 'suspend', 'take', 'complete']))(
    'of %s ends with one result, and no recorded step runs again',
    async (kind) => {
      let lost = false
      const { pool } = faultyPool(database.url, (sql) => {
        if (lost || !isStatement[kind](sql)) return undefined
        if (kind === 'take' && !taking) return undefined
        lost = true
        return 'lose the reply'
      })
      let taking = false
      const pawl = app.pawl({ database: pool, processTimeout: '1s' })
      const ran: string[] = []
      const child = pawl.workflow('lost child', (execution) => execution.signal('end'))
      const parent = pawl.workflow('lost parent', async (execution) => {
        await execution.step('first', () => ran.push('first'))
        await execution.sleep(1200)
        const said = await execution.signal('said')
        const handle = await child.start(undefined, { key: execution.key })
        const ended = await handle.result()
        await execution.step('last', () => ran.push('last'))
        return [said, ended]
      })
      await pawl.start()
      const handle = await parent.start(undefined)
      await app.until(handle.id, 'waiting')
      taking = true
      await handle.signal('said', 1)
      const { id } = child.handle(handle.key)
      await waitFor('the child', async () => (await app.status(id)) === 'waiting')
      await app.until(handle.id, 'waiting')
      await pawl.signal(id, 'end', 2)
      expect(await handle.result()).toEqual([1, 2])
      expect(lost).toBe(true)
      expect(ran).toEqual(['first', 'last'])
      expect(await app.journal(handle.id)).toEqual([
        'step first',
        'sleep sleep',
        'signal said',
        'child start lost child',
        `result result lost child ${id}`,
        'step last',
      ])
    },
  )
})

describe('P3, P7 Two that run one workflow', () => {
  it('a superseded attempt consumes no signal that its successor waits for', async () => {
    const takes = holdFirst(isStatement.takeSignal, 'before')
    const stale = app.pawl({
      database: faultyPool(database.url, takes.mishap).pool,
      processTimeout: '10 minutes',
    })
    const looks = holdFirst((sql) => sql.includes('select sender, value'), 'before')
    const heir = app.pawl({ database: faultyPool(database.url, looks.mishap).pool })
    const [one, two] = [stale, heir].map((pawl) =>
      pawl.workflow('answered', async (execution) => {
        const answer = await execution.signal('x')
        // The stale one learns here, at the latest, that it is.
        return execution.step('use it', () => answer)
      }),
    )
    await stale.start()
    const handle = await one!.start(undefined)
    await handle.signal('x', 'taken once')
    await takes.reached
    await database.pool.query(`update pawl.processes set expires_at = 'epoch'`)
    await heir.start()
    await database.pool.query(`update pawl.wakeups set due_at = 'epoch'; notify pawl, 'due'`)
    // The heir has read the journal, and has not looked for signals yet.
    await looks.reached
    takes.release()
    await waitFor('the stale one to end', () => stale.engine.busyIds.length === 0)
    looks.release()
    expect(await two!.handle(handle.key).result({ timeout: '20s' })).toBe('taken once')
  })

  it('a worker does not lease what its own process is just starting', async () => {
    const start = holdFirst(isStatement.start, 'after')
    let looked = 0
    const { pool } = faultyPool(database.url, (sql) => {
      if (isStatement.take(sql)) looked++
      return start.mishap(sql)
    })
    const pawl = app.pawl({ database: pool, processTimeout: '10 minutes' })
    const ran: number[] = []
    const counted = pawl.workflow('counted', (execution) =>
      execution.step('count', () => ran.push(execution.attempt)),
    )
    await pawl.start()
    const starting = counted.start(undefined)
    await start.reached
    const before = looked
    await database.pool.query(`update pawl.wakeups set due_at = 'epoch'; notify pawl, 'due'`)
    await waitFor('the worker to look', () => looked > before + 1)
    start.release()
    const handle = await starting
    expect(await handle.result({ timeout: '20s' })).toBe(1)
    await waitFor('all to end', () => pawl.engine.busyIds.length === 0)
    expect(ran).toEqual([1])
  })
})
