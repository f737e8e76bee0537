import type { Express, Request, Response } from 'express'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import { expressVersions, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { isClaim, startTap } from '../helpers/tap.ts'
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

  it('row 17: a claim whose reply is lost is recognised, and runs once', async () => {
    let lost = 0
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (!isClaim(statement) || lost++ > 0) return forward()
        database.pool.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
           and pid <> pg_backend_pid() and query like '%scope, key, name, fingerprint, retention%'`,
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
