import pg from 'pg'
import { beforeAll, describe, expect, it } from 'vitest'
import { CancelledError } from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { latch } from '../helpers/latch.ts'
import { isProof } from '../helpers/proof.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

beforeAll(async () => {
  await database.pool.query('create table effects (key text)')
})

const closing: (() => Promise<unknown>)[] = []
afterEachTest(async () => {
  for (const close of closing.splice(0)) await close()
})

const effects = async (key: string) =>
  (await database.pool.query('select from effects where key = $1', [key])).rowCount

/** An app by way of a proxy, over a pool that has a handful of idle connections. */
async function start() {
  const proxy = await startProxy(database.url)
  const pool = new pg.Pool({ connectionString: proxy.url, max: 5 })
  closing.push(
    () => pool.end(),
    () => proxy.close(),
  )
  const runs: string[] = []
  const hold = latch()
  closing.unshift(async () => hold.open())
  const app = await startApp(
    pool,
    { wait: '50s', resumable: true, scope: () => 'all', statusUrl: '/operations/:id' },
    (app) => {
      app.post('/', async (req, res) => {
        const key = req.get('idempotency-key') as string
        runs.push(key)
        if (req.get('x-hold')) await hold.wait
        await req.execution?.transaction('effect', async (tx) => {
          await tx.query('insert into effects values ($1)', [key])
        })
        res.status(201).json({ random: Math.random() })
      })
      app.get('/operations/:id', (req, res) =>
        app.locals.pawl.statusHandler({ authorize: () => true })(req, res),
      )
    },
    // Nothing here is to run into it.
    { pawl: { storeTimeout: '30s', drainTimeout: 0 } },
  )
  app.app.locals.pawl = app.pawl
  const approval = app.pawl.workflow('approval', (execution) => execution.signal('approved'))
  // As many connections as the pool may have, so that some are idle whatever goes on meanwhile.
  const clients = await Promise.all(
    Array.from({ length: pool.options.max - pool.totalCount }, () => pool.connect()),
  )
  for (const client of clients) client.release()
  return { ...app, proxy, runs, hold, approval }
}

type App = Awaited<ReturnType<typeof start>>

/** Something an app asks of Pawl, in two parts: what comes before the fault, and what the fault must not fail. */
type Ask = (app: App) => Promise<() => Promise<unknown>>

const asks: Record<string, Ask> = {
  'a request': async ({ url, runs }) => {
    const key = freshKey()
    return async () => {
      expect((await request(url, { key })).status).toBe(201)
      expect(runs).toEqual([key])
      expect(await effects(key)).toBe(1)
    }
  },

  'many requests at once': async ({ url, runs }) => {
    const keys = Array.from({ length: 20 }, freshKey)
    return async () => {
      const answers = await Promise.all(keys.map((key) => request(url, { key })))
      expect(answers.map(({ status }) => status)).toEqual(keys.map(() => 201))
      expect(runs.toSorted()).toEqual(keys.toSorted())
      for (const key of keys) expect(await effects(key)).toBe(1)
    }
  },

  'a transaction and an outcome': async ({ url, runs, hold }) => {
    const key = freshKey()
    const answer = request(url, { key, headers: { 'x-hold': '1' } })
    await waitFor('the handler', () => runs.length === 1)
    return async () => {
      hold.open()
      expect((await answer).status).toBe(201)
      expect(await effects(key)).toBe(1)
    }
  },

  'a wait for another process': async ({ url, runs }) => {
    const other = await start()
    const key = freshKey()
    const first = request(other.url, { key, headers: { 'x-hold': '1' } })
    await waitFor('the handler', () => other.runs.length === 1)
    const second = request(url, { key })
    await waitFor('the wait', async () => {
      const sql = 'select from pawl.executions where key = $1 and awaited'
      return (await database.pool.query(sql, [key])).rowCount
    })
    return async () => {
      await pause(300) // Meanwhile it looks several times.
      other.hold.open()
      expect((await second).body).toEqual((await first).body)
      expect(runs).toEqual([])
    }
  },

  'the status endpoint': async ({ url }) => {
    const key = freshKey()
    const { body } = await request(url, { key })
    const id = (await database.pool.query('select id from pawl.executions where key = $1', [key]))
      .rows[0].id
    return async () => {
      const status = await request(`${url}/operations/${id}`, { method: 'GET' })
      expect(status).toMatchObject({ status: 201, body })
    }
  },

  'find()': async ({ url, pawl }) => {
    const key = freshKey()
    await request(url, { key })
    return async () => {
      expect(await pawl.find({ key, scope: 'all' })).toMatchObject({ status: 'done' })
    }
  },

  'release()': async ({ url, pawl, runs }) => {
    const key = freshKey()
    request(url, { key, headers: { 'x-hold': '1' } }).catch(() => {})
    await waitFor('the handler', () => runs.length === 1)
    const lost = `update pawl.executions set status = 'unknown', owner = null where key = $1`
    await database.pool.query(lost, [key])
    return async () => {
      expect(await pawl.release({ key, scope: 'all' })).toBe(true)
    }
  },

  'the start of a workflow, a signal to it, and its result': async ({ approval, pawl }) => {
    return async () => {
      const handle = await approval.start(undefined, { key: freshKey() })
      await pawl.signal(handle.id, 'approved', 'yes')
      expect(await handle.result()).toBe('yes')
    }
  },

  'a wait for the result of a workflow': async ({ approval, pawl }) => {
    const handle = await approval.start(undefined, { key: freshKey() })
    const result = handle.result()
    await pause(200)
    return async () => {
      await pause(300)
      await pawl.signal(handle.id, 'approved', 'yes')
      expect(await result).toBe('yes')
    }
  },

  'the cancellation of a workflow, and its status': async ({ approval, pawl }) => {
    const handle = await approval.start(undefined, { key: freshKey() })
    return async () => {
      await pawl.cancel(handle.id)
      await expect(handle.result()).rejects.toThrow(CancelledError)
      expect(await pawl.status(handle.id)).toMatchObject({ status: 'cancelled' })
    }
  },
}

/** In `npm test` a read, a write and a wait meet the second fault; in the proofs all do. */
const awayFor = ['a request', 'a wait for another process', 'find()']

describe.each(Object.entries(asks))('%s', (name, ask) => {
  it('does not fail when all connections have died unnoticed', async () => {
    const app = await start()
    const use = await ask(app)
    app.proxy.forget('reset')
    await use()
  })

  if (isProof || awayFor.includes(name))
    it('does not fail when the database is away for a moment', async () => {
      const app = await start()
      const use = await ask(app)
      app.proxy.refuse()
      app.proxy.cut()
      const used = use()
      used.catch(() => {})
      await pause(700)
      app.proxy.restore()
      await used
    })
})
