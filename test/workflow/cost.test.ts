import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { faultyPool, isStatement } from '../helpers/faulty-pool.ts'
import { latch } from '../helpers/latch.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

/** Of statements, those that are neither a heartbeat nor an idle worker's. */
const atWork = (statements: string[]) =>
  statements.filter((sql) => !isStatement.heartbeat(sql) && !isStatement.poll(sql))

const kindOf = (sql: string) =>
  (['start', 'record', 'complete', 'suspend', 'take', 'notify'] as const).find((kind) =>
    isStatement[kind](sql),
  ) ?? sql

describe('What a workflow costs', () => {
  it('of N steps, started where there is room: N + 2 statements that write, and no reads', async () => {
    let idle = latch()
    const { pool, statements } = faultyPool(database.url, (sql) => ({
      after: async () => {
        if (sql.includes('min(found.due_at)')) idle.open()
      },
    }))
    const pawl = app.pawl({ database: pool })
    const steps = pawl.workflow('steps', async (execution, n: number) => {
      for (let i = 0; i < n; i++) await execution.step(`step ${i}`, () => i)
      return n
    })
    await pawl.start()
    await waitFor('it to listen', () => statements.some((sql) => sql.startsWith('listen')))
    for (const n of [0, 1, 5]) {
      await waitFor('a run that the idle worker did not disturb', async () => {
        // Right behind a look of the worker's: there is none for a while.
        idle = latch()
        await idle.wait
        statements.length = 0
        const handle = await steps.start(n)
        expect(await handle.result()).toBe(n)
        if (statements.some(isStatement.poll)) return false
        const expected = ['start', ...Array<string>(n).fill('record'), 'complete']
        expect(atWork(statements).map(kindOf)).toEqual(expected)
        return true
      })
    }
  })

  it('a hundred that start at once share their statements', async () => {
    const { pool, statements } = faultyPool(database.url)
    const pawl = app.pawl({ database: pool, workers: { concurrency: 300 } })
    const two = pawl.workflow('two steps', async (execution, n: number) => {
      await execution.step('first', () => n)
      return execution.step('second', () => n + 1)
    })
    await pawl.start()
    statements.length = 0
    const inputs = Array.from({ length: 100 }, (_, n) => n)
    const handles = await Promise.all(inputs.map((n) => two.start(n)))
    const results = await Promise.all(handles.map((handle) => handle.result()))
    expect(results).toEqual(inputs.map((n) => n + 1))
    // Alone they would have sent 400.
    expect(statements.filter(isStatement.start).length).toBeLessThanOrEqual(3)
    expect(atWork(statements).length).toBeLessThan(100)
  })

  it('also where there is no room for them, and with the notification of it', async () => {
    const { pool, statements } = faultyPool(database.url)
    const pawl = app.pawl({ database: pool, workers: false })
    const elsewhere = pawl.workflow('elsewhere', (_, n: number) => n)
    await pawl.start()
    statements.length = 0
    await elsewhere.startMany(Array.from({ length: 1000 }, (_, n) => ({ input: n })))
    await waitFor('workers to be told', () => statements.some(isStatement.notify))
    // 256 go into one statement.
    const kinds = atWork(statements).map(kindOf)
    expect(kinds.filter((kind) => kind === 'start')).toHaveLength(4)
    const others = kinds.filter((kind) => kind !== 'start')
    expect(new Set(others)).toEqual(new Set(['notify']))
    expect(others.length).toBeLessThanOrEqual(4)
  })
})
