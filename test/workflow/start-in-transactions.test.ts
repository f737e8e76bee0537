import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { drizzleTransactions } from '../../lib/transactions/drizzle.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'
import { openKysely } from '../transactions/orms/kysely.ts'

const database = withDatabase()
const app = withWorkflows(database)

async function twoClients() {
  const clients = [0, 1].map(() => new pg.Client({ connectionString: database.url }))
  await Promise.all(clients.map((client) => client.connect()))
  for (const client of clients) await client.query('begin')
  return clients as [pg.Client, pg.Client]
}

describe('A workflow that is started in a transaction of the app', () => {
  it('exists if the transaction commits, and does not if it is rolled back', async () => {
    const pawl = app.pawl()
    const echo = pawl.workflow('echo', (_, said: string) => said)
    await pawl.start()
    const [one, two] = await twoClients()
    const never = await echo.start('never', { tx: one })
    const soon = await echo.start('soon', { tx: two })
    await expect(soon.status()).rejects.toMatchObject({ code: 'execution-missing' })
    await one.query('rollback')
    await two.query('commit')
    expect(await soon.result()).toBe('soon')
    await expect(never.status()).rejects.toMatchObject({ code: 'execution-missing' })
    await Promise.all([one.end(), two.end()])
  })

  it('is that of a concurrent transaction that commits first, without a key-reused error', async () => {
    const pawl = app.pawl()
    const echo = pawl.workflow('echo', (_, said: string) => said)
    await pawl.start()
    const key = freshKey()
    const [one, two] = await twoClients()
    await echo.start('same', { tx: one, key })
    const second = echo.start('same', { tx: two, key })
    const waits = `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%started as%'`
    await waitFor('it to wait', async () => (await database.pool.query(waits)).rowCount)
    await one.query('commit')
    const handle = await second
    await two.query('commit')
    expect(await handle.result()).toBe('same')
    await Promise.all([one.end(), two.end()])
  })

  it('is a new execution if the outcome under its key has expired', async () => {
    const pawl = app.pawl()
    const echo = pawl.workflow('echo', (_, said: string) => said)
    await pawl.start()
    const key = freshKey()
    const old = await echo.start('old', { key })
    expect(await old.result()).toBe('old')
    await database.pool.query(`update pawl.executions set expires_at = 'epoch' where id = $1`, [
      old.id,
    ])
    const [one, two] = await twoClients()
    const handle = await echo.start('new', { tx: one, key })
    await one.query('commit')
    expect(await handle.result()).toBe('new')
    await Promise.all([one.end(), two.end()])
  })

  it.each(['pg', 'kysely', 'drizzle'])('of execution.transaction, over %s', async (library) => {
    const pool = new pg.Pool({ connectionString: database.url, max: 2 })
    const kysely = await openKysely(database.url)
    const on = {
      pg: undefined,
      kysely: kysely.on,
      drizzle: drizzleTransactions(drizzle(pool)),
    }[library]
    const pawl = app.pawl()
    const child = pawl.workflow('started inside', (_, n: number) => n + 1)
    const outer = pawl.workflow('outer', { retry: { backoff: 1 } }, async (execution) => {
      const key = await execution.transaction('start it', { on } as object, async (tx) => {
        const { key, id } = await child.start(execution.attempt, { tx })
        if (execution.attempt === 1) throw new Error('rolled back')
        return { key, id }
      })
      return [key.id, await child.handle(key.key).result()]
    })
    await pawl.start()
    const handle = await outer.start(undefined)
    const [id, result] = (await handle.result()) as [string, number]
    // Of the first attempt nothing is left: it would have another input.
    expect(result).toBe(3)
    const sql = 'select id from pawl.executions where parent = $1'
    expect((await database.pool.query(sql, [handle.id])).rows).toEqual([{ id }])
    await Promise.all([pool.end(), kysely.close()])
  })

  it('is journaled in a request: a retry starts no second one', async () => {
    const started = new Set<string>()
    const pawl = app.pawl()
    const work = pawl.workflow('work of a request', () => 'done')
    await pawl.start()
    const served = await startApp(database.url, { resumable: true }, (express) => {
      express.post('/', async (req, res) => {
        const { id } = await work.start(undefined)
        started.add(id)
        if (req.execution?.attempt === 1) return res.status(500).end()
        res.status(202).json(id)
      })
    })
    const key = freshKey()
    expect((await request(served.url, { key })).status).toBe(500)
    const answer = await request(served.url, { key })
    expect([answer.status, [...started]]).toEqual([202, [answer.json]])
  })
})

describe('A process that stops', () => {
  it('gives back its executions: another process continues them at once, and no attempt is counted', async () => {
    const ran: number[] = []
    const define = (pawl: ReturnType<typeof app.pawl>) =>
      pawl.workflow('long', { retry: 1 }, (execution) =>
        execution.step('long', async () => {
          ran.push(execution.attempt)
          if (execution.attempt === 1) await new Promise(() => {})
          return execution.attempt
        }),
      )
    const [first, second] = [0, 1].map(() => app.pawl({ processTimeout: '10 minutes' }))
    if (!first || !second) return
    const long = define(first)
    await first.start()
    const { key } = await long.start(undefined)
    await waitFor('it to run', () => ran.length)
    const again = define(second)
    await second.start()
    await first.stop()
    expect(await again.handle(key).result({ timeout: '30s' })).toBe(2)
    expect(ran).toEqual([1, 2])
  })
})

describe('Workers that cannot listen', () => {
  it('find by polling what other processes start', async () => {
    const pool = new pg.Pool({ connectionString: database.url, max: 2 })
    const deaf = app.pawl({ database: pool })
    deaf.workflow('polled', (_, n: number) => n * 2)
    const starting = app.pawl({ workers: false })
    const polled = starting.workflow('polled', (_, n: number) => n * 2)
    await Promise.all([deaf.start(), starting.start()])
    const handles = await polled.startMany([{ input: 1 }, { input: 2 }])
    expect(await Promise.all(handles.map((handle) => handle.result()))).toEqual([2, 4])
    await deaf.stop()
    await pool.end()
  })
})
