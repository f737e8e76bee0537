import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const workflows = withWorkflows(database)

const pools: pg.Pool[] = []
afterEachTest(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.end()))
})

/** An app that counts how often its handler runs, by key. */
async function start(url: string, storeTimeout: string) {
  const pool = new pg.Pool({ connectionString: url, application_name: 'under strain' })
  pools.push(pool)
  const runs = new Map<string, number>()
  const app = await startApp(
    pool,
    { wait: 0 },
    (app) =>
      app.post('/', (req, res) => {
        const key = req.execution?.key as string
        runs.set(key, (runs.get(key) ?? 0) + 1)
        res.status(201).json(key)
      }),
    { pawl: { storeTimeout: storeTimeout as '1s' } },
  )
  return { url: app.url, runs, close: app.close }
}

const count = async (sql: string) => (await database.pool.query(sql)).rows[0].n as number

describe('A lock on the whole table, as CREATE INDEX takes it', () => {
  it('is refused requests, not ever more connections; then nothing is left that nobody runs', async () => {
    const apps = [await start(database.url, '2s'), await start(database.url, '2s')]
    const locker = await database.pool.connect()
    await locker.query('begin; lock table pawl.executions in share mode')
    const backends: number[] = []
    const keys: string[] = []
    const refused: Promise<number>[] = []
    for (let n = 0; n < 30; n++) {
      const key = freshKey()
      keys.push(key)
      const url = apps[n % 2]?.url as string
      refused.push(request(url, { key }).then(({ status }) => status))
      await new Promise((resolve) => setTimeout(resolve, 100))
      const sql = `select count(*)::int as n from pg_stat_activity where application_name = 'under strain'`
      backends.push(await count(sql))
    }
    expect(new Set(await Promise.all(refused))).toEqual(new Set([503]))
    expect(Math.max(...backends)).toBeLessThanOrEqual(2 * 5)
    await locker.query('commit')
    locker.release()
    // What was claimed although the client had its 503 is undone; a retry runs, once.
    await waitFor('the end of all', async () => {
      const sql = `select count(*)::int as n from pawl.execution_log where status = 'running'`
      return (await count(sql)) === 0
    })
    for (const [n, key] of keys.entries()) {
      const { status } = await request(apps[n % 2]?.url as string, { key })
      expect(status).toBe(201)
    }
    const runs = apps.flatMap((app) => [...app.runs.values()])
    expect(runs).toEqual(keys.map(() => 1))
  }, 120_000)
})

describe('A database from which nothing comes back', () => {
  it('is a 503 within storeTimeout for each request, however many wait', async () => {
    const proxy = await startProxy(database.url)
    const { url, runs, close } = await start(proxy.url, '1s')
    expect((await request(url, { key: freshKey() })).status).toBe(201)
    proxy.freeze()
    const took: number[] = []
    const sent: Promise<unknown>[] = []
    for (let n = 0; n < 60; n++) {
      const sentAt = performance.now()
      const answered = request(url, { key: freshKey() }).then(({ status }) => {
        took.push(performance.now() - sentAt)
        return status
      })
      sent.push(answered)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(new Set(await Promise.all(sent))).toEqual(new Set([503]))
    // Four times the time, for a machine that is busy; it was ten times as long.
    expect(Math.max(...took)).toBeLessThan(4000)
    proxy.restore()
    await waitFor('the store', async () => (await request(url, { key: 'after' })).status === 201)
    expect(runs.size).toBe(2)
    await close()
    await proxy.close()
  }, 120_000)
})

describe('A transaction of the app that has started an execution and stays open', () => {
  it('holds up who starts the same, and nobody else', async () => {
    const pawl = workflows.pawl({ storeTimeout: '20s' })
    const echo = pawl.workflow('echo', (_, said: string) => said)
    await pawl.start()
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await client.query('begin')
    const key = freshKey()
    await echo.start('same', { key, tx: client })
    let isOver = false
    const same = echo.start('same', { key }).finally(() => {
      isOver = true
    })
    // In one batch with it, and after it.
    const others = await Promise.all(['a', 'b', 'c'].map((said) => echo.start(said)))
    const later = await echo.start('d')
    const results = [...others, later].map((handle) => handle.result())
    expect(await Promise.all(results)).toEqual(['a', 'b', 'c', 'd'])
    expect(isOver).toBe(false)
    await client.query('commit')
    expect(await (await same).result()).toBe('same')
    await client.end()
  })
})
