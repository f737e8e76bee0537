import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { describe, expect, it } from 'vitest'
import type { PawlOptions } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { faultyPool } from '../helpers/faulty-pool.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

const ONE_ATTEMPT = { retry: { attempts: 1, backoff: 20, maxBackoff: 50 } }

type Key = NonNullable<PawlOptions['encryptionKeys']>[number]

const attempt = async (key: string) => {
  const sql = 'select attempt, status from pawl.executions where key = $1'
  return (await database.pool.query(sql, [key])).rows[0]
}

describe('What is no failure of the code does not count as an attempt', () => {
  it("a pool of the app that has no connection left for the code's transaction", async () => {
    const pool = new pg.Pool({ connectionString: database.url, max: 2 })
    const pawl = app.pawl({ database: pool, storeTimeout: 300 })
    const work = pawl.workflow('exhausted', ONE_ATTEMPT, (execution) =>
      execution.transaction(
        'write',
        async (tx: pg.ClientBase) => (await tx.query('select 1')).rowCount,
      ),
    )
    await pawl.start()
    const busy = await Promise.all([pool.connect(), pool.connect()])
    const handle = await work.start(undefined, { key: 'exhausted' })
    await waitFor('two attempts', async () => (await attempt('exhausted')).attempt > 2)
    for (const client of busy) client.release()
    expect(await handle.result()).toBe(1)
    await pawl.stop()
    await pool.end()
  })

  it('a journal that cannot be read', async () => {
    const start = async (options: Partial<PawlOptions>) => {
      const pawl = app.pawl({ storeTimeout: 200, ...options })
      const work = pawl.workflow('unread', ONE_ATTEMPT, async (execution) => {
        await execution.step('first', () => 1)
        await execution.sleep(500)
        return 'done'
      })
      await pawl.start()
      return { pawl, work }
    }
    const one = await start({})
    const { id } = await one.work.start(undefined, { key: 'unread' })
    await waitFor('the sleep', async () => (await app.journal(id)).includes('sleep sleep'))
    await one.pawl.stop()
    let refuse = true
    const { pool, statements } = faultyPool(database.url, (sql) =>
      refuse && isJournalRead(sql) ? 'lose the statement' : undefined,
    )
    const two = await start({ database: pool })
    await waitFor('two attempts', async () => (await attempt('unread')).attempt > 2)
    expect(statements.filter(isJournalRead).length).toBeGreaterThan(1)
    refuse = false
    expect(await two.work.handle('unread').result()).toBe('done')
  })

  it('an input that this process has no key for', async () => {
    const keyOf = (id: string): Key => ({ id, key: randomBytes(32) })
    const [right, wrong] = [keyOf('right'), keyOf('wrong')]
    const start = async (key: Key, options: Partial<PawlOptions> = {}) => {
      const pawl = app.pawl({ encryptionKeys: [key], ...options })
      const work = pawl.workflow('secret', ONE_ATTEMPT, (_, input: string) => input)
      await pawl.start()
      return { pawl, work }
    }
    const starter = await start(right, { workers: false })
    const handle = await starter.work.start('input', { key: 'secret' })
    const other = await start(wrong)
    await waitFor('two attempts', async () => (await attempt('secret')).attempt > 1)
    expect((await attempt('secret')).status).not.toBe('parked')
    await other.pawl.stop()
    await start(right)
    expect(await handle.result()).toBe('input')
  })

  it('but an error of the code does', async () => {
    const pawl = app.pawl()
    const work = pawl.workflow('broken', ONE_ATTEMPT, () => {
      throw new Error('as always')
    })
    await pawl.start()
    const handle = await work.start(undefined, { key: 'broken' })
    await app.until(handle.id, 'parked')
    expect((await attempt('broken')).attempt).toBe(1)
    await handle.cancel()
  })
})

function isJournalRead(sql: string): boolean {
  return sql.includes('s.life = e.created_at offset 0')
}
