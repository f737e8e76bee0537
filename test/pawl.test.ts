import type { ErrorRequestHandler } from 'express'
import { describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../lib/adapters/express.ts'
import { idempotency } from '../lib/adapters/express.ts'
import { Pawl, type PawlError, type PawlOptions } from '../lib/index.ts'
import { silent, startApp } from './helpers/app.ts'
import { spawnApp } from './helpers/child.ts'
import { withDatabase } from './helpers/database.ts'
import { proofOnly } from './helpers/proof.ts'
import { startProxy } from './helpers/proxy.ts'
import { freshKey, request } from './helpers/request.ts'
import { runsByKey, withRuns } from './helpers/runs.ts'
import { waitFor } from './helpers/wait-for.ts'

const database = withDatabase()
withRuns(database)

const processes = async () =>
  (await database.pool.query('select count(*)::int as n from pawl.processes')).rows[0].n
const log = async (key: string) => {
  const { rows } = await database.pool.query('select * from pawl.execution_log where key = $1', [
    key,
  ])
  return rows[0]
}

/** An app whose handlers wait until the test lets them go. Its Pawl has connections of its own, and closes them. */
async function start(options: IdempotencyOptions<never> = {}, pawl: Partial<PawlOptions> = {}) {
  const held: (() => void)[] = []
  const app = await startApp(
    database.url,
    options as IdempotencyOptions,
    (app) => {
      app.post('/', async (req, res) => {
        if (!req.query.fast) await new Promise<void>((resolve) => held.push(resolve))
        res.status(201).json({ random: Math.random(), attempt: req.execution?.attempt })
      })
    },
    { pawl: { database: database.url, ...pawl } },
  )
  const running = (n: number) => waitFor(`${n} handlers`, () => held.length === n)
  const letGo = () => held.splice(0).forEach((go) => void go())
  return { ...app, running, letGo, letLastGo: () => void held.pop()?.() }
}

describe('start and stop', () => {
  it('registers the process, and removes it', async () => {
    const pawl = new Pawl({ database: database.url, logger: silent })
    const before = await processes()
    await pawl.start()
    expect(await processes()).toBe(before + 1)
    await pawl.stop()
    expect(await processes()).toBe(before)
  })

  it('twice each is once each', async () => {
    const pawl = new Pawl({ database: database.url, logger: silent })
    const before = await processes()
    await pawl.start()
    await pawl.start()
    expect(await processes()).toBe(before + 1)
    await pawl.stop()
    await pawl.stop()
    expect(await processes()).toBe(before)
  })

  it('stop before start does nothing', async () => {
    await new Pawl({ database: database.url, logger: silent }).stop()
  })

  it('can be started again after it was stopped', async () => {
    const app = await start()
    const key = freshKey()
    const first = await request(`${app.url}?fast=1`, { key })
    await app.pawl.stop()
    await app.pawl.start()
    expect((await request(`${app.url}?fast=1`, { key })).body).toEqual(first.body)
    expect((await request(`${app.url}?fast=1`, { key: freshKey() })).status).toBe(201)
  })

  it('a start that failed can be repeated', async () => {
    const pawl = new Pawl({ database: database.url, schema: 'later', logger: silent })
    await expect(pawl.start()).rejects.toMatchObject({ code: 'schema-missing' })
    const other = new Pawl({
      database: database.url,
      schema: 'later',
      migrate: true,
      logger: silent,
    })
    await other.start()
    await other.stop()
    await pawl.start()
    expect(await pawl.find({ key: 'x' })).toBeNull()
    await pawl.stop()
  })

  it('a database that is not there: store-unavailable in time, with a hint', async () => {
    const pawl = new Pawl({
      database: 'postgres://nobody:secret@127.0.0.1:1/nowhere',
      storeTimeout: '500ms',
      logger: silent,
    })
    const error: PawlError = await pawl.start().catch((error) => error)
    expect(error).toMatchObject({ name: 'PawlError', code: 'store-unavailable' })
    expect(error.message).not.toContain('secret')
  })

  it('a request before start is an error of the app: not-started, through next(err)', async () => {
    const pawl = new Pawl({ database: database.url, logger: silent })
    const onError: ErrorRequestHandler = (error, _req, res, _next) => {
      res.status(500).json({ name: error.name, code: error.code })
    }
    const { url } = await startApp(
      database.url,
      undefined,
      (app) => {
        app.use(idempotency(pawl))
        app.post('/', (_req, res) => void res.send('ran'))
        app.use(onError)
      },
      { mount: false },
    )
    const answer = await request(url, { key: freshKey() })
    expect(answer.status).toBe(500)
    expect(answer.json).toEqual({ name: 'PawlError', code: 'not-started' })
    expect((await request(url)).text).toBe('ran')
  })
})

describe('a stop while requests run', () => {
  it('waits for them, answers them, and refuses new ones with 503', async () => {
    const app = await start()
    const key = freshKey()
    const first = request(app.url, { key })
    await app.running(1)
    let stopped = false
    const stopping = app.pawl.stop().then(() => {
      stopped = true
    })
    const refused = await request(app.url, { key: freshKey() })
    expect(refused.status).toBe(503)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect(refused.headers.connection).toBe('close')
    expect(stopped).toBe(false)
    app.letGo()
    expect((await first).status).toBe(201)
    await stopping
    expect(await log(key)).toMatchObject({ status: 'done' })
  })

  it.each([
    ['resumable: another process goes on at once', true, 201, 2],
    ['else: nobody can know, and another process says so at once', false, 409, undefined],
  ])(
    'gives back what is not finished within drainTimeout; %s',
    async (_, resumable, status, attempt) => {
      const leaving = await start(
        { resumable },
        { drainTimeout: '200ms', processTimeout: '1 hour' },
      )
      // It waits for longer than this test lasts, and its patience is not what ends it.
      const staying = await start({ resumable, wait: '10 minutes' }, { processTimeout: '1 hour' })
      const key = freshKey()
      const first = request(leaving.url, { key })
      await leaving.running(1)
      // One that waits for it meanwhile is woken.
      const second = request(`${staying.url}`, { key })
      await waitFor('the wait', async () => {
        const sql = 'select awaited from pawl.executions where key = $1'
        return (await database.pool.query(sql, [key])).rows[0].awaited
      })
      await leaving.pawl.stop()
      if (resumable) {
        await staying.running(1)
        staying.letGo()
      }
      const answer = await second
      expect(answer.status).toBe(status)
      expect(answer.json.attempt).toBe(attempt)
      leaving.letGo()
      // Its handler ended too late to be recorded; the client is told to come again.
      expect((await first).status).toBe(503)
    },
  )
})

describe('a stop while the database does not answer', () => {
  it('ends within drainTimeout and one storeTimeout', async () => {
    const proxy = await startProxy(database.url)
    const app = await start({}, { database: proxy.url, drainTimeout: '2s', storeTimeout: '4s' })
    app.pawl.workflow('idle', () => {})
    request(app.url, { key: freshKey() }).catch(() => {})
    await app.running(1)
    proxy.freeze()
    const started = performance.now()
    await app.pawl.stop()
    // Six seconds. One timeout after the other would be fourteen.
    expect(performance.now() - started).toBeLessThan(11_000)
    app.letGo()
    await proxy.close()
  })
})

describe('two processes behind one database', () => {
  const env = (settings: object = {}, route: object = {}) => ({
    DATABASE_URL: database.url,
    PAWL: JSON.stringify(settings),
    ROUTE: JSON.stringify({ resumable: true, wait: '10s', ...route }),
  })
  const post = (url: string, key: string, body: object = {}) =>
    request(`${url}/orders`, { key, body })
  const started = (key: string) =>
    waitFor('the handler', async () => {
      return (await database.pool.query('select 1 from runs where key = $1', [key])).rows[0]
    })

  proofOnly('are one: each key runs once, and both give the same answer', async () => {
    // Nobody is to be taken for dead here, however slow the machine is.
    const patient = env({ processTimeout: '1 minute' })
    const apps = await Promise.all([spawnApp('orders.ts', patient), spawnApp('orders.ts', patient)])
    const keys = Array.from({ length: 50 }, freshKey)
    const answers = await Promise.all(
      keys.map(async (key) => {
        const both = await Promise.all(apps.map(({ url }) => post(url, key, { ms: 20 })))
        return new Set(both.map(({ status, text }) => `${status} ${text}`))
      }),
    )
    expect(answers.map((answer) => answer.size)).toEqual(keys.map(() => 1))
    const runs = await runsByKey(database.pool)
    expect(keys.map((key) => runs.get(key))).toEqual(keys.map(() => 1))
    await Promise.all(apps.map((app) => app.kill()))
  })

  it('one that gets SIGTERM answers what it runs, and leaves nothing behind', async () => {
    const app = await spawnApp('orders.ts', env())
    const key = freshKey()
    const answer = post(app.url, key, { ms: 500 })
    await started(key)
    app.kill('SIGTERM')
    expect((await answer).status).toBe(201)
    expect(await app.exited).toBe(0)
    expect((await log(key)).status).toBe('done')
    const sql = 'select 1 from pawl.processes where pid = $1'
    expect((await database.pool.query(sql, [app.pid])).rows).toEqual([])
  })

  it('one that is killed is noticed within processTimeout, and the other goes on', async () => {
    const [victim, heir] = await Promise.all([
      spawnApp('orders.ts', env({ processTimeout: '1s' })),
      spawnApp('orders.ts', env({ processTimeout: '1s' })),
    ])
    const key = freshKey()
    const lost = post(victim.url, key, { ms: 60_000 }).catch((error) => error.code)
    await started(key)
    await victim.kill()
    const second = post(heir.url, key, { ms: 60_000 })
    second.catch(() => {})
    expect(await lost).toBe('ECONNRESET')
    await waitFor('attempt 2', async () => {
      const { rows } = await database.pool.query('select attempt from runs where key = $1', [key])
      return rows.length === 2
    })
    await heir.kill()
  })

  proofOnly('one that comes back under its instance name goes on at once', async () => {
    const settings = { processTimeout: '1 hour', instance: 'web-1' }
    const victim = await spawnApp('orders.ts', env(settings))
    const key = freshKey()
    const body = { killAfter: 1 }
    expect(await post(victim.url, key, body).catch((error) => error.code)).toBe('ECONNRESET')
    expect((await log(key)).status).toBe('running')
    const reborn = await spawnApp('orders.ts', env(settings))
    expect((await log(key)).status).toBe('interrupted')
    const answer = await post(reborn.url, key, body)
    expect(answer.status).toBe(201)
    expect(answer.json.attempt).toBe(2)
    await reborn.kill()
  })
})

describe('find and release', () => {
  it('find tells what became of a key', async () => {
    const app = await start({ scope: () => 'tenant' })
    const key = freshKey()
    const name = { scope: 'tenant', key }
    expect(await app.pawl.find(name)).toBeNull()
    const answer = request(app.url, { key })
    await app.running(1)
    expect(await app.pawl.find(name)).toMatchObject({
      status: 'running',
      attempt: 1,
      responseStatus: null,
    })
    expect(await app.pawl.find({ key })).toBeNull()
    app.letGo()
    await answer
    expect(await app.pawl.find(name)).toMatchObject({ status: 'done', responseStatus: 201 })
  })

  it('release frees what is unknown: the next retry runs it, and nothing else is freed', async () => {
    const app = await start({ timeout: '100ms' })
    const key = freshKey()
    expect((await request(app.url, { key })).status).toBe(504)
    expect(await app.pawl.find({ key })).toMatchObject({ status: 'unknown' })
    expect((await request(app.url, { key })).json.type).toBe('urn:pawl:problem:outcome-unknown')
    expect(await app.pawl.release({ key })).toBe(true)
    expect(await app.pawl.find({ key })).toMatchObject({ status: 'released' })
    expect(await app.pawl.release({ key })).toBe(false)
    const running = request(app.url, { key })
    await app.running(2)
    expect(await app.pawl.release({ key })).toBe(false)
    // The second first: of either attempt a success counts, whoever has it first.
    app.letLastGo()
    expect((await running).json.attempt).toBe(2)
    app.letGo()
    expect(await app.pawl.release({ key })).toBe(false)
    expect(await app.pawl.release({ key: 'never seen' })).toBe(false)
  })

  it('before start they say so: not-started', async () => {
    const pawl = new Pawl({ database: database.url, logger: silent })
    await expect(pawl.find({ key: 'x' })).rejects.toMatchObject({ code: 'not-started' })
    await expect(pawl.release({ key: 'x' })).rejects.toMatchObject({ code: 'not-started' })
  })
})
