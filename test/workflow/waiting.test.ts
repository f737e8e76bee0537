import { describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { WorkflowStore } from '../../lib/store/workflow-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('Durable waiting', () => {
  it('sleeps across a restart, and continues after its recorded steps', async () => {
    const ran: string[] = []
    const define = (pawl: ReturnType<typeof app.pawl>) =>
      pawl.workflow('sleeper', async (execution) => {
        await execution.step('before', () => ran.push('before'))
        await execution.sleep('1 hour')
        await execution.step('after', () => ran.push('after'))
        return execution.attempt
      })
    const first = app.pawl()
    const sleeper = define(first)
    await first.start()
    const { id, key } = await sleeper.start(undefined)
    await app.until(id, 'waiting')
    await first.stop()
    await database.pool.query(
      `update pawl.steps set started_at = started_at - interval '1 hour' where kind = 'sleep';
       update pawl.wakeups set due_at = due_at - interval '1 hour'`,
    )
    const second = app.pawl()
    const again = define(second)
    await second.start()
    expect(await again.handle(key).result()).toBe(2)
    expect(ran).toEqual(['before', 'after'])
    expect(await app.journal(id)).toEqual(['step before', 'sleep sleep', 'step after'])
  })

  it('receives a signal, also one that arrived before the wait, and undefined after the timeout', async () => {
    const pawl = app.pawl()
    const asking = pawl.workflow('asking', async (execution) => {
      const early = await execution.signal('early')
      const approved = await execution.signal<{ by: string }>('approved')
      const late = await execution.signal('late', { timeout: 20 })
      return { early, approved, late }
    })
    await pawl.start()
    const handle = await asking.start(undefined, { delay: 100 })
    await pawl.signal(handle.id, 'early', 1, { id: 'a' })
    await pawl.signal(handle.id, 'early', 1, { id: 'a' })
    await app.until(handle.id, 'waiting')
    await new Promise((resolve) => setTimeout(resolve, 700))
    await app.until(handle.id, 'waiting')
    await pawl.signal(handle.id, 'approved', { by: 'Ada' })
    expect(await handle.result()).toEqual({ early: 1, approved: { by: 'Ada' }, late: undefined })
    await expect(pawl.signal(handle.id, 'approved')).rejects.toMatchObject({
      code: 'execution-missing',
    })
  })

  it('waits for its children while it is suspended, and for many of them at once', async () => {
    const pawl = app.pawl({ workers: { concurrency: 10 } })
    const child = pawl.workflow('square', async (execution, n: number) => {
      if (n % 10 === 0) await execution.sleep(1500)
      return n * n
    })
    const parent = pawl.workflow('sum of squares', async (_, n: number) => {
      const children = await child.startMany(Array.from({ length: n }, (_, i) => ({ input: i })))
      const squares = await Promise.all(children.map((handle) => handle.result()))
      return squares.reduce((a, b) => a + b, 0)
    })
    await pawl.start()
    const handle = await parent.start(100)
    expect(await handle.result()).toBe(328350)
  })

  it('reads a few signals at a time, however many are unread', async () => {
    const pawl = app.pawl()
    const total = 100
    const reads = vi.spyOn(WorkflowStore.prototype, 'readPendingSignals')
    const reader = pawl.workflow('reader', async (execution) => {
      const values: number[] = []
      // Odd ones only: what is refused is skipped, over several pages.
      const schema = z.number().refine((n) => n % 2 === 1)
      for (let i = 0; i < total / 2; i++) {
        values.push((await execution.signal('n', { schema })) as number)
      }
      return values
    })
    await pawl.start()
    const handle = await reader.start(undefined, { delay: 500 })
    for (let n = 0; n < total; n++) await handle.signal('n', n)
    expect(await handle.result()).toEqual(Array.from({ length: total / 2 }, (_, i) => 2 * i + 1))
    const pages = await Promise.all(reads.mock.results.map(({ value }) => value))
    reads.mockRestore()
    expect(Math.max(...pages.map(({ signals }) => signals.length))).toBe(16)
  })
})
