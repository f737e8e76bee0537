import { describe, expect, it } from 'vitest'
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
})
