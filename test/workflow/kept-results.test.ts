import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { TerminalError } from '../../lib/index.ts'
import { withClock } from '../helpers/clock.ts'
import { withDatabase } from '../helpers/database.ts'
import { latch } from '../helpers/latch.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const clock = withClock(database)
const app = withWorkflows(database)

const DAY = 864e5

/** A process that lives through every jump of the clock, and that sweeps all the time. */
const sweepingPawl = () => app.pawl({ processTimeout: '24 days', retentionInterval: 20 })

/** Moves the clock by so many days, and waits until retention has looked at all that has expired by then. */
async function pass(days: number): Promise<void> {
  const { rows } = await database.pool.query('select pawl.now() as now')
  await clock.set(new Date(rows[0].now.getTime() + days * DAY))
  await waitFor('the sweep', async () => {
    const sql = 'select 1 from pawl.executions where expires_at <= pawl.now() limit 1'
    return (await database.pool.query(sql)).rowCount === 0
  })
}

const exists = async ({ id }: { id: string }) => (await app.status(id)) !== undefined

describe('A result that a workflow wants later than the retention of 7 days', () => {
  it('is kept for the parent that sleeps for 8 days, and goes once the parent has journaled it', async () => {
    const pawl = sweepingPawl()
    let runs = 0
    const child = pawl.workflow('child', (_, n: number) => {
      runs++
      return n * 2
    })
    const failing = pawl.workflow('failing', () => {
      throw new TerminalError('no stock')
    })
    const parent = pawl.workflow('parent', async (execution) => {
      const kept = await child.start(21, { key: 'kept' })
      const failed = await failing.start(undefined, { key: 'failed' })
      await child.start(1, { key: 'forgotten', ignoreResult: true })
      await execution.sleep('8 days')
      const result = await kept.result()
      const error = await failed.result().catch(({ cause }) => (cause as Error).message)
      await execution.sleep('1 day')
      return { result, error }
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    const [kept, forgotten] = [child.handle('kept'), child.handle('forgotten')]
    const failed = failing.handle('failed')
    await app.until(handle.id, 'waiting')
    await app.until(kept.id, 'done')
    await app.until(failed.id, 'failed')
    await app.until(forgotten.id, 'done')
    await pass(7.5)
    expect(await Promise.all([kept, failed, forgotten].map(exists))).toEqual([true, true, false])
    // To everybody it is there: a start of its key returns it, with no second run.
    await database.pool.query(`update pawl.executions set expires_at = pawl.now() where id = $1`, [
      kept.id,
    ])
    expect(await (await child.start(21, { key: 'kept' })).result()).toBe(42)
    expect(runs).toBe(2)
    await pass(0.6)
    await waitFor('the results', async () => (await app.journal(handle.id)).length === 7)
    await app.until(handle.id, 'waiting')
    // An hour after retention has last looked at them, at most.
    await pass(0.05)
    expect(await Promise.all([kept, failed, handle].map(exists))).toEqual([false, false, true])
    await pass(1)
    expect(await handle.result()).toEqual({ result: 42, error: 'no stock' })
    expect(await app.journal(handle.id)).toEqual([
      'child start child',
      'child start failing',
      'child start child',
      'sleep sleep',
      `result result child ${kept.id}`,
      `result result failing ${failed.id}`,
      'sleep sleep',
    ])
  })

  it('is kept for a request that started it, until that has an answer', async () => {
    const pawl = sweepingPawl()
    let runs = 0
    const short = pawl.workflow('short', { retention: '1 hour' }, () => ++runs)
    await pawl.start()
    const server = express()
    const route = idempotency(pawl, { resumable: true, retention: { unfinished: '3 days' } })
    server.post('/', route, async (req, res) => {
      const handle = await short.start(undefined)
      if (req.execution?.attempt === 1) return void res.status(503).json({ id: handle.id })
      res.json({ id: handle.id, result: await handle.result() })
    })
    const listening = server.listen(0, '127.0.0.1')
    try {
      await once(listening, 'listening')
      const url = `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
      const key = freshKey()
      const first = await request(url, { key, body: {} })
      expect(first.status).toBe(503)
      const { id } = JSON.parse(first.text) as { id: string }
      await app.until(id, 'done')
      await pass(2)
      const second = await request(url, { key, body: {} })
      expect(JSON.parse(second.text)).toEqual({ id, result: 1 })
      expect(runs).toBe(1)
      await pass(0.05)
      expect(await exists({ id })).toBe(false)
    } finally {
      listening.close()
    }
  })

  it('is kept for one that waits by key and is parked, however short its attempt was', async () => {
    const pawl = sweepingPawl()
    const other = pawl.workflow('other', async (execution) => execution.signal('answer'))
    let isBroken = true
    const waiter = pawl.workflow('waiter', { retry: 1 }, async (execution) => {
      const [result] = await Promise.all([
        other.handle('shared').result(),
        execution.step('fail', () => {
          if (isBroken) throw new Error('broken')
        }),
      ])
      return result
    })
    await pawl.start()
    const shared = await other.start(undefined, { key: 'shared' })
    await app.until(shared.id, 'waiting')
    const handle = await waiter.start(undefined)
    await app.until(handle.id, 'parked')
    await waitFor('the wait to be registered', async () => {
      const sql = 'select waiters from pawl.executions where id = $1'
      return (await database.pool.query(sql, [shared.id])).rows[0].waiters
    })
    await shared.signal('answer', 42)
    await app.until(shared.id, 'done')
    await pass(8)
    await pass(1)
    expect(await exists(shared)).toBe(true)
    isBroken = false
    await pawl.release({ id: handle.id })
    expect(await handle.result()).toBe(42)
    await pass(0.05)
    expect(await Promise.all([shared, handle].map(exists))).toEqual([false, true])
  })

  it('is registered with executions that the workflow did not start, or that it starts with ignoreResult', async () => {
    const pawl = sweepingPawl()
    const hold = latch()
    const child = pawl.workflow('held', (execution) => execution.step('hold', () => hold.wait))
    // Its own step keeps it from being suspended, which would register all of its waits.
    const parent = pawl.workflow('holding', async (execution) => {
      const own = await child.start(undefined, { key: 'own' })
      const ignored = await child.start(undefined, { key: 'ignored', ignoreResult: true })
      const results = [own, ignored, child.handle('other')].map((handle) => handle.result())
      await Promise.all([...results, execution.step('hold', () => hold.wait)])
    })
    await pawl.start()
    await child.start(undefined, { key: 'other' })
    const handle = await parent.start(undefined)
    const waiters = async () => {
      const sql = `select key, waiters from pawl.executions where name = 'held' order by key`
      const { rows } = await database.pool.query(sql)
      return rows.map((row) => `${row.key} ${row.waiters}`).join(', ')
    }
    const expected = `ignored ${handle.id}, other ${handle.id}, own null`
    await waitFor('the waits', async () => (await waiters()) === expected)
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect(await waiters()).toBe(expected)
    hold.open()
    await handle.result()
  })

  it('is ignored by a parent whose cancellation still cancels the child', async () => {
    const pawl = sweepingPawl()
    const child = pawl.workflow('endless child', (execution) => execution.signal('never'))
    const parent = pawl.workflow('cancelled parent', async (execution) => {
      await child.start(undefined, { key: 'endless', ignoreResult: true })
      await execution.signal('never')
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    const { id } = child.handle('endless')
    await app.until(id, 'waiting')
    await app.until(handle.id, 'waiting')
    await handle.cancel()
    await app.until(id, 'cancelled')
    await app.until(handle.id, 'cancelled')
  })

  it('is an option that is checked', async () => {
    const pawl = sweepingPawl()
    const checked = pawl.workflow('checked', () => 1)
    await pawl.start()
    await expect(checked.start(undefined, { ignoreResult: 'yes' as never })).rejects.toThrow(
      /Option "ignoreResult" is "yes"; allowed: true or false/,
    )
  })
})
