import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Pawl, transaction } from '../../lib/index.ts'
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

  it('notifies nobody inside that transaction, whose commit would take a lock of the whole cluster', async () => {
    const pawl = app.pawl()
    const echo = pawl.workflow('echo', (_, said: string) => said)
    await pawl.start()
    const [one, listener] = await twoClients()
    const notified: pg.Notification[] = []
    listener.on('notification', (notification) => notified.push(notification))
    await listener.query('commit; listen pawl')
    const handle = await echo.start('hello', { tx: one })
    await one.query('commit')
    expect(await handle.result()).toBe('hello')
    // Of another session, so that what was notified before has arrived with it.
    await database.pool.query(`notify pawl, 'the end'`)
    await waitFor('the end', () => notified.some(({ payload }) => payload === 'the end'))
    const { processID } = one as unknown as { processID: number }
    expect(notified.filter(({ processId }) => processId === processID)).toEqual([])
    await Promise.all([one.end(), listener.end()])
  })

  describe.each(['this process', 'another process'])('is found without polling by %s', (where) => {
    // A worker polls after 750 ms at the earliest; after 50 ms where it has found the execution locked.
    beforeEach(() => {
      const start = globalThis.setTimeout
      const startShort = (run: () => void, ms = 0) => start(run, ms < 500 ? ms : 600_000).unref()
      vi.spyOn(globalThis, 'setTimeout').mockImplementation(startShort as typeof setTimeout)
    })
    afterEach(() => void vi.restoreAllMocks())

    /** A workflow that is started here; no worker polls by its timer. */
    async function echoThere() {
      const worker = app.pawl()
      const here = where === 'this process' ? worker : app.pawl({ workers: false })
      const define = (pawl: Pawl) => pawl.workflow('echo', (_, said: string) => said)
      const echo = define(here)
      if (here !== worker) define(worker)
      // Polls once at its start. Idle then, and it listens.
      await worker.start()
      if (here !== worker) await here.start()
      const listens = `select from pg_stat_activity
        where datname = current_database() and state = 'idle' and query = 'listen "pawl"'`
      while ((await database.pool.query(listens)).rowCount === 0);
      return { pawl: here, echo }
    }

    it.each(['pg', 'kysely'])('after transaction() over %s', async (library) => {
      const { pawl, echo } = await echoThere()
      const kysely = await openKysely(database.url)
      const on = library === 'kysely' ? kysely.on : pawl.host
      const handle = await transaction('start it', { on } as object, async (tx: unknown) => {
        const handle = await echo.start('hello', { tx })
        await expect(handle.status()).rejects.toMatchObject({ code: 'execution-missing' })
        return handle
      })
      expect(await handle.result()).toBe('hello')
      await kysely.close()
    })

    it('after a transaction that the app runs itself', async () => {
      const { echo } = await echoThere()
      const [one, two] = await twoClients()
      const handle = await echo.start('hello', { tx: one })
      await new Promise((resolve) => setImmediate(resolve))
      await one.query('commit')
      expect(await handle.result()).toBe('hello')
      await Promise.all([one.end(), two.end()])
    })
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
