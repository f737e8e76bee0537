import { describe, expect, it } from 'vitest'
import { JournalMemory } from '../../lib/engine/journal/journal-memory.ts'
import type { PawlOptions } from '../../lib/index.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { StepStore } from '../../lib/store/step-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { proofOnly } from '../helpers/proof.ts'
import { claimNew, claimOf, storeOver } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)
const MB = 1024 ** 2

describe('Large journals', () => {
  it('are read in pages, complete and in order', async () => {
    const db = new NodePostgres(database.pool, 30_000, false)
    const side = await storeOver(db)
    const steps = new StepStore(db, 'pawl', side.owner)
    const one = await claimNew(side, claimOf())
    const two = await claimNew(side, claimOf())
    const sizes = [10, 0, 5 * MB, 4 * MB, 7, 9 * MB, 3 * MB, null, 1]
    for (const ref of [one, two]) {
      for (const [n, size] of sizes.entries()) {
        const output = size === null ? null : Buffer.alloc(size, n)
        const entry = { name: `step ${n}`, occurrence: 1, position: n, kind: 'step' as const }
        const rest = { error: null, tookMs: 1, completed: true, onlyIfCurrent: false }
        await steps.record({ ...ref, ...entry, ...rest, output })
      }
    }
    const [opened, other] = await Promise.all([steps.openJournal(one), steps.openJournal(two)])
    const total = sizes.reduce((sum: number, size) => sum + (size ?? 0), 0)
    expect([opened.bytes, opened.entries.length, other.bytes]).toEqual([total, 9, total])
    expect(opened.unread.map(({ entry }) => entry.name)).toEqual([
      'step 4',
      'step 5',
      'step 6',
      'step 8',
    ])
    expect(other.unread).toHaveLength(7)
    for (const [ref, journal] of [
      [one, opened],
      [two, other],
    ] as const) {
      const entries = await steps.completeJournal(ref, journal)
      expect(entries.map(({ name }) => name)).toEqual(sizes.map((_, n) => `step ${n}`))
      for (const [n, { output }] of entries.entries()) {
        const size = sizes[n] as number | null
        expect(output?.length ?? null).toBe(size)
        if (size) expect(output?.equals(Buffer.alloc(size, n))).toBe(true)
      }
    }
    await db.close()
  })

  it('that was deleted meanwhile is an error, not an empty one', async () => {
    const db = new NodePostgres(database.pool, 30_000, false)
    const side = await storeOver(db)
    const steps = new StepStore(db, 'pawl', side.owner)
    const ref = await claimNew(side, claimOf())
    for (const n of [1, 2]) {
      const entry = { name: `step ${n}`, occurrence: 1, position: n, kind: 'step' as const }
      const rest = { error: null, tookMs: 1, completed: true, onlyIfCurrent: false }
      await steps.record({ ...ref, ...entry, ...rest, output: Buffer.alloc(9 * MB) })
    }
    const opened = await steps.openJournal(ref)
    expect(opened.unread).toHaveLength(1)
    await database.pool.query('delete from pawl.steps where execution_id = $1', [ref.id])
    await expect(steps.completeJournal(ref, opened)).rejects.toMatchObject({
      code: 'execution-gone',
    })
    await db.close()
  })

  proofOnly('that are woken at once do not fail, and are not all in memory at once', async () => {
    const count = 100
    const working = { now: 0, most: 0 }
    const start = async (options: Partial<PawlOptions>) => {
      const pawl = app.pawl(options)
      const work = pawl.workflow('large', { retry: { attempts: 1 } }, async (execution) => {
        let length = 0
        for (let n = 0; n < 10; n++)
          length += (await execution.step(`step ${n}`, () => 'x'.repeat(900_000))).length
        await execution.signal('go')
        return execution.step('work', async () => {
          working.most = Math.max(working.most, ++working.now)
          // For as long as it takes to read all journals.
          await new Promise((resolve) => setTimeout(resolve, 2000))
          working.now--
          return length
        })
      })
      await pawl.start()
      return { pawl, work }
    }
    const first = await start({ workers: { concurrency: 4 } })
    const starts = Array.from({ length: count }, () => ({ input: undefined }))
    const handles = await first.work.startMany(starts)
    for (const { id } of handles) await app.until(id, 'waiting')
    const recorded = `select count(*)::int as n from pawl.steps where name = 'step 9'`
    await waitFor('all steps', async () => {
      return (await database.pool.query(recorded)).rows[0].n === count
    })
    await first.pawl.stop()
    const sender = await start({ workers: false })
    for (const { id } of handles) await sender.pawl.signal(id, 'go')
    await start({ workers: { concurrency: 200 } })
    const results = await Promise.all(handles.map(({ key }) => sender.work.handle(key).result()))
    expect(results).toEqual(handles.map(() => 9_000_000))
    // 128 MiB of journals of 9 MB.
    expect(working.most).toBeLessThanOrEqual(14)
  })
})

describe('The memory of journals', () => {
  it('has room for one in any case, and for others up to its limit', () => {
    const memory = new JournalMemory()
    const large = memory.reserve(200 * MB, false)
    expect([memory.isFull, memory.reserve(1, false)]).toEqual([true, null])
    expect(memory.reserve(1, true)).not.toBeNull()
    large?.()
    expect(memory.isFull).toBe(false)
    const free = memory.reserve(100 * MB, false)
    expect(memory.reserve(28 * MB, false)).toBeNull()
    free?.()
    expect(memory.reserve(28 * MB, false)).not.toBeNull()
  })
})
