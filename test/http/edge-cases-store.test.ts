import type { Express, Request, Response } from 'express'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { IdempotencyOptions } from '../../lib/http/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { startProxy } from '../helpers/proxy.ts'
import { freshKey, request } from '../helpers/request.ts'
import { isClaim, isCompletion, type Passing, startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()

/** How things go between Pawl and PostgreSQL, in one process; test/promises has many. */
describe.each(expressVersions)('Edge cases of the store, Express $version', ({ express }) => {
  const start = async (
    options: IdempotencyOptions<Request>,
    handler: (req: Request, res: Response) => unknown,
    url = database.url,
  ) => {
    const app = await startApp(
      url,
      options,
      (app: Express) =>
        app.post('/', (req, res) => {
          app.locals.runs = (app.locals.runs ?? 0) + 1
          return handler(req, res)
        }),
      { express, pawl: { storeTimeout: '1s', drainTimeout: 0 } },
    )
    return { url: app.url, pawl: app.pawl, runs: (): number => app.app.locals.runs ?? 0 }
  }
  const state = async (key: string) => {
    const sql = 'select status, owner, attempt from pawl.executions where key = $1'
    return (await database.pool.query(sql, [key])).rows[0]
  }
  /** As if the process that owns the execution had stopped: its heartbeat is old. */
  const bury = (key: string) =>
    database.pool.query(
      `delete from pawl.processes where id = (select owner from pawl.executions where key = $1)`,
      [key],
    )
  /** A handler that answers when the test says so. */
  const latch = () => {
    const answers: (() => void)[] = []
    const handler = (body: object) => (req: Request, res: Response) =>
      void answers.push(() => res.json({ ...body, attempt: req.execution?.attempt }))
    return { answers, handler }
  }

  it('row 1: no byte of the answer leaves before its outcome is committed', async () => {
    let committed = false
    let before: string | undefined
    let answered = false
    const key = freshKey()
    const tap = await startTap(database.url, {
      onReply: async ({ statement, forward }: Passing) => {
        if (isCompletion(statement) && !committed) {
          committed = true
          await new Promise((resolve) => setTimeout(resolve, 100))
          before = answered ? 'answered' : 'held'
        }
        forward()
      },
    })
    const { url } = await start({}, (_req, res) => res.send('x'), tap.url)
    const response = await request(url, { key }).finally(() => {
      answered = true
    })
    expect([response.text, before]).toEqual(['x', 'held'])
    expect((await state(key)).status).toBe('done')
    await tap.close()
  })

  it('row 2: of a process that died while it ran, the outcome is unknown; resumable, it is taken over', async () => {
    for (const resumable of [false, true]) {
      const { handler, answers } = latch()
      const dying = await start({ resumable }, handler({ from: 'dying' }))
      const heir = await start({ resumable, wait: 0 }, (req, res) =>
        res.json({ attempt: req.execution?.attempt }),
      )
      const key = freshKey()
      const first = request(dying.url, { key }).catch(() => null)
      await waitFor('the handler', () => answers[0])
      expect((await request(heir.url, { key })).json.type).toBe('urn:pawl:problem:in-progress')
      await bury(key)
      const retry = await request(heir.url, { key })
      if (resumable) expect(retry.json).toEqual({ attempt: 2 })
      else expect(retry.json.type).toBe('urn:pawl:problem:outcome-unknown')
      expect(heir.runs()).toBe(resumable ? 1 : 0)
      answers[0]?.()
      await first
    }
  })

  it('row 3: a slow owner that finishes after its takeover answers what was recorded', async () => {
    const { handler, answers } = latch()
    const slow = await start({ resumable: true }, handler({ from: 'slow' }))
    const heir = await start({ resumable: true }, (_req, res) => res.json({ from: 'heir' }))
    const key = freshKey()
    const first = request(slow.url, { key })
    await waitFor('the handler', () => answers[0])
    await bury(key)
    expect((await request(heir.url, { key })).json).toEqual({ from: 'heir' })
    answers[0]?.()
    const late = await first
    expect(late.json).toEqual({ from: 'heir' })
    expect(late.headers['idempotent-replayed']).toBe('true')
    for (const { url } of [slow, heir]) {
      expect((await request(url, { key })).json).toEqual({ from: 'heir' })
    }
  })

  it('row 3: a slow owner that finishes first is the truth, and its heir answers that', async () => {
    const { handler, answers } = latch()
    const slow = await start({ resumable: true }, handler({ from: 'slow' }))
    const heir = await start({ resumable: true }, handler({ from: 'heir' }))
    const key = freshKey()
    const first = request(slow.url, { key })
    await waitFor('the first handler', () => answers[0])
    await bury(key)
    const second = request(heir.url, { key })
    await waitFor('the second handler', () => answers[1])
    answers[0]?.()
    expect((await first).json).toEqual({ from: 'slow', attempt: 1 })
    answers[1]?.()
    expect((await second).json).toEqual({ from: 'slow', attempt: 1 })
  })

  it.each(['refuse', 'freeze'] as const)(
    'row 15: PostgreSQL is away at the claim (%s): 503 in time, nothing runs, and it heals',
    async (fault) => {
      const proxy = await startProxy(database.url)
      const { url, runs } = await start({}, (_req, res) => res.send('x'), proxy.url)
      proxy[fault]()
      if (fault === 'refuse') proxy.cut()
      const key = freshKey()
      const refused = await request(url, { key })
      expect(refused.status).toBe(503)
      expect(refused.headers['retry-after']).toBe('2')
      expect(refused.json.detail).toMatch(/was not carried out/)
      expect(runs()).toBe(0)
      proxy.restore()
      const healed = await waitFor('an answer', async () => {
        const answer = await request(url, { key })
        return answer.status === 200 ? answer : null
      })
      expect(healed.text).toBe('x')
      expect(runs()).toBe(1)
      await proxy.close()
    },
  )

  it('row 15: with onStoreError run the handler runs, unprotected, body and all', async () => {
    const proxy = await startProxy(database.url)
    let body = ''
    const { url, runs } = await start(
      { onStoreError: 'run' },
      async (req, res) => {
        body = Buffer.concat(await req.toArray()).toString()
        res.json({ protected: Boolean(req.execution) })
      },
      proxy.url,
    )
    const key = freshKey()
    expect((await request(url, { key: freshKey(), body: 'all of it' })).json.protected).toBe(true)
    proxy.refuse()
    proxy.cut()
    for (const run of [2, 3]) {
      const answer = await request(url, { key, body: 'all of it' })
      expect(answer.json).toEqual({ protected: false })
      expect(body).toBe('all of it')
      expect(runs()).toBe(run)
    }
    await proxy.close()
  })

  it('row 16: PostgreSQL is away at completion: 503, nothing runs twice, and the retry gets the outcome', async () => {
    const proxy = await startProxy(database.url)
    const { url, runs } = await start(
      {},
      (_req, res) => {
        proxy.refuse()
        proxy.cut()
        res.status(201).set('X-Order', '7').json({ ok: true })
      },
      proxy.url,
    )
    const key = freshKey()
    const refused = await request(url, { key })
    expect(refused.status).toBe(503)
    expect(refused.headers['retry-after']).toBe('2')
    expect(refused.headers['x-order']).toBeUndefined()
    expect(refused.json.detail).toMatch(/was carried out/)
    proxy.restore()
    const retry = await waitFor('the outcome', async () => {
      const answer = await request(url, { key })
      return answer.status === 201 ? answer : null
    })
    expect(retry.json).toEqual({ ok: true })
    expect(retry.headers['x-order']).toBe('7')
    expect(runs()).toBe(1)
    await proxy.close()
  })

  it('row 16: away at the completion of a body that flows: 503 and no byte of it, since none is recorded', async () => {
    const proxy = await startProxy(database.url)
    const { url } = await start(
      { maxBody: 10 },
      (_req, res) => {
        proxy.refuse()
        proxy.cut()
        res.write('secret '.repeat(10))
        res.end('end')
      },
      proxy.url,
    )
    const refused = await request(url, { key: freshKey() })
    expect(refused.status).toBe(503)
    expect(refused.text).not.toContain('secret')
    await proxy.close()
  })

  it('row 17: a claim whose reply is lost is recognised, and runs once', async () => {
    let lost = 0
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (!isClaim(statement) || lost++ > 0) return forward()
        database.pool.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
           and pid <> pg_backend_pid() and query like '%on conflict (id) do nothing%'`,
        )
      },
    })
    const { url, runs } = await start({}, (_req, res) => res.send('x'), tap.url)
    const key = freshKey()
    expect((await request(url, { key })).text).toBe('x')
    expect((await request(url, { key })).headers['idempotent-replayed']).toBe('true')
    expect(lost).toBeGreaterThan(0)
    expect(runs()).toBe(1)
    await tap.close()
  })

  describe('row 23: only the clock of the database counts', () => {
    afterEach(() => {
      vi.useRealTimers()
    })
    it.each(['2000-01-01', '2100-01-01'])('for an app that believes it is %s', async (date) => {
      const { handler, answers } = latch()
      const right = await start({ wait: 0 }, (_req, res) => res.send('x'))
      const key = freshKey()
      await request(right.url, { key })
      vi.useFakeTimers({ toFake: ['Date'], now: new Date(date) })
      const wrong = await start({ wait: 0 }, handler({}))
      expect((await request(wrong.url, { key })).headers['idempotent-replayed']).toBe('true')
      const other = freshKey()
      const first = request(wrong.url, { key: other })
      await waitFor('the handler', () => answers[0])
      vi.useRealTimers()
      expect((await request(right.url, { key: other })).json.type).toBe(
        'urn:pawl:problem:in-progress',
      )
      answers[0]?.()
      const answer = await first
      expect((await request(right.url, { key: other })).json).toEqual(answer.json)
    })
  })

  it('row 26: the longest scope, key, URL and headers fit', async () => {
    const scope = '🏢'.repeat(512)
    const { url, pawl } = await start({ scope: () => scope, key: () => key }, (_req, res) => {
      res.set('X-Long', 'ü'.repeat(10_000)).send('x')
    })
    const key = freshKey().padEnd(255, 'ß')
    const long = `${url}/?q=${'x'.repeat(12_000)}`
    const first = await request(long)
    expect(first.status).toBe(200)
    const replay = await request(long)
    expect(replay.headers['x-long']).toBe(first.headers['x-long'])
    expect((await pawl.find({ scope, key }))?.status).toBe('done')
  })
})

describe('The tables', () => {
  it('row 26: are logged, all of them', async () => {
    const { rows } = await database.pool.query(
      `select relname, relpersistence from pg_class
       where relnamespace = 'pawl'::regnamespace and relkind = 'r'`,
    )
    expect(rows.length).toBeGreaterThan(1)
    expect(new Set(rows.map((row) => row.relpersistence))).toEqual(new Set(['p']))
  })
})
