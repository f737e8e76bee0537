import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { startApp } from '../helpers/app.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases, isProof } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const LOCKED_MS = cases(3000, { proof: 60_000 })
const REQUESTS_A_SECOND = 20

const database = withDatabase()
const pools: pg.Pool[] = []
afterEachTest(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.end()))
})

const one = async (sql: string) => (await database.pool.query(sql)).rows[0]

describe('P5 Nothing is abandoned silently: a lock on the table of executions', () => {
  it(`of ${LOCKED_MS} ms, as CREATE INDEX takes it: all that was asked for ends, once, and nothing runs that nobody runs`, async () => {
    const runs = new Map<string, number>()
    const ended: number[] = []
    const apps = await Promise.all(
      [1, 2, 3, 4].map(async () => {
        const pool = new pg.Pool({
          connectionString: database.url,
          application_name: 'beside a lock',
        })
        pools.push(pool)
        const app = await startApp(
          pool,
          { wait: 0 },
          (app) =>
            app.post('/', async (req, res) => {
              const key = req.execution?.key as string
              const n = await req.execution!.step('count', () => (runs.get(key) ?? 0) + 1)
              runs.set(key, n)
              res.status(201).json(n)
            }),
          { pawl: { storeTimeout: '2s' } },
        )
        const queue = app.pawl.queue('beside a lock', { concurrency: 3 })
        const job = app.pawl.workflow('beside a lock', { queue }, async (execution, n: number) => {
          await execution.step('work', () => n)
          await execution.sleep(200)
          await execution.step('end', () => void ended.push(n))
          return n
        })
        const start = (n: number) => job.start(n, { key: `${n}` })
        return { url: app.url, start }
      }),
    )
    const jobs = Array.from({ length: 40 }, (_, n) => n)
    await Promise.all(jobs.slice(0, 20).map((n) => apps[n % 4]!.start(n)))
    const locker = await database.pool.connect()
    await locker.query('begin; lock table pawl.executions in share mode')

    const during = new Map<string, Promise<number>>()
    let backends = 0
    const until = performance.now() + LOCKED_MS
    for (let n = 0; performance.now() < until; n++) {
      const key = freshKey()
      during.set(
        key,
        request(apps[n % 4]!.url, { key }).then(({ status }) => status),
      )
      await new Promise((resolve) => setTimeout(resolve, 1000 / REQUESTS_A_SECOND))
      const { count } = await one(
        `select count(*)::int from pg_stat_activity where application_name = 'beside a lock'`,
      )
      backends = Math.max(backends, count)
    }
    await locker.query('commit')
    locker.release()
    const released = performance.now()
    const statuses = await Promise.all(during.values())
    // Whoever has an answer knows that nothing is stored, or what is.
    expect(new Set(statuses.filter((status) => status !== 201))).toEqual(new Set([503]))
    expect(backends).toBeLessThanOrEqual(4 * (5 + 1))

    // Clients send again what was refused, and have an answer at once: nothing is held by a dead claim.
    const retried = await Promise.all(
      [...during.keys()].map((key, n) =>
        waitFor(`the answer of ${key}`, async () => {
          const { status } = await request(apps[n % 4]!.url, { key })
          if (![201, 409, 503].includes(status)) throw new Error(`answered ${status}`)
          return status === 201
        }),
      ),
    )
    expect(retried).toHaveLength(during.size)
    for (const key of during.keys()) expect(runs.get(key)).toBe(1)
    const answeredMs = performance.now() - released

    await Promise.all(jobs.map((n) => apps[n % 4]!.start(n)))
    await waitFor(
      'all workflows',
      async () => {
        const { left } = await one(
          `select count(*)::int as left from pawl.executions where status <> 'done'`,
        )
        return left === 0
      },
      60_000,
    )
    expect(ended.sort((a, b) => a - b)).toEqual(jobs)
    const counts = await one(`select held, waiting from pawl.queues where name = 'beside a lock'`)
    expect(counts).toEqual({ held: 0, waiting: 0 })
    if (isProof)
      console.log(
        `${during.size} requests under a lock of ${LOCKED_MS} ms: at most ${backends} backends; ` +
          `all answered ${Math.round(answeredMs)} ms after it ended`,
      )
  }, 300_000)
})
