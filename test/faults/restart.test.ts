import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Execution, Pawl } from '../../lib/index.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { migrate } from '../../lib/store/migrate.ts'
import { silent, startApp } from '../helpers/app.ts'
import { FAST, startPostgres } from '../helpers/postgres.ts'
import { cases, variants } from '../helpers/proof.ts'
import { freshKey, type RawResponse, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const CLIENTS = cases(6, { proof: 12 })

let server: Awaited<ReturnType<typeof startPostgres>>

beforeAll(async () => {
  server = await startPostgres(FAST)
  const pool = new pg.Pool({ connectionString: server.url, max: 1 })
  await migrate(new NodePostgres(pool, 10_000, false), 'pawl')
  await pool.end()
})
afterAll(() => server.stop())

/** As a patient client does: again with the same key until the answer is final. */
async function persistently(urls: string[], key: string): Promise<RawResponse> {
  for (let tries = 0; ; tries++) {
    const answer = await request(urls[tries % urls.length] as string, { key })
    if (answer.status < 500 && answer.status !== 409) return answer
    if (tries > 400) throw new Error(`${key} never got an answer: ${answer.text}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

describe('PostgreSQL that crashes and recovers under load', () => {
  it('loses no outcome, runs nothing twice, leaves nothing behind, and both processes heal', async () => {
    const runs = new Map<string, number>()
    const start = () =>
      startApp(
        server.url,
        {},
        (app) => {
          app.post('/', async (req, res) => {
            const key = req.get('idempotency-key') as string
            const run = (runs.get(key) ?? 0) + 1
            runs.set(key, run)
            await new Promise((resolve) => setTimeout(resolve, Math.random() * 20))
            res.status(201).json({ key, run })
          })
        },
        { pawl: { storeTimeout: '1s' } },
      )
    const urls = (await Promise.all([start(), start()])).map(({ url }) => url)
    const answers = new Map<string, RawResponse>()
    let loading = true
    let refused = 0
    const client = async (n: number) => {
      while (loading) {
        const key = freshKey()
        const order = n % 2 ? urls : [...urls].reverse()
        const first = await request(order[0] as string, { key })
        if (first.status === 503) refused++
        answers.set(key, first.status === 201 ? first : await persistently(order, key))
      }
    }
    const clients = Array.from({ length: CLIENTS }, (_, n) => client(n))
    const moreAnswers = async (n: number) => {
      const before = answers.size
      await waitFor(`${n} more answers`, () => answers.size >= before + n, 60_000)
    }
    for (const downMs of variants([0, 1500], [1500])) {
      await moreAnswers(cases(20, { proof: 50 }))
      await server.crash(downMs)
    }
    await moreAnswers(cases(20, { proof: 50 }))
    loading = false
    await Promise.all(clients)

    expect(refused).toBeGreaterThan(0)
    // What was answered before the crash is answered after it, by either process.
    const sample = [...answers].filter((_, n) => n % 5 === 0)
    for (const [n, [key, answer]] of sample.entries()) {
      expect(answer.status).toBe(201)
      const replay = await request(urls[n % 2] as string, { key })
      expect(replay.text).toBe(answer.text)
    }
    expect(new Set(runs.values())).toEqual(new Set([1]))
    const pool = new pg.Pool({ connectionString: server.url, max: 1 })
    const { rows } = await pool.query(
      'select status, count(*)::int as n from pawl.execution_log group by status',
    )
    await pool.end()
    expect(rows).toEqual([{ status: 'done', n: answers.size }])
  }, 180_000)

  it('in the middle of steps and transactions: effects and journal agree', async () => {
    const pool = new pg.Pool({ connectionString: server.url, max: 4 })
    pool.on('error', () => {})
    await pool.query(
      'truncate pawl.executions, pawl.steps; create table orders (id serial, key text)',
    )
    const charges = new Map<string, Set<string>>()
    const pause = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 10))
    const insert = async (tx: pg.ClientBase, key: string): Promise<number> => {
      const { rows } = await tx.query('insert into orders (key) values ($1) returning id', [key])
      await pause()
      return rows[0].id
    }
    const start = () =>
      startApp(
        server.url,
        {},
        (app, express) => {
          app.use(express.json())
          app.post('/', async (req, res) => {
            const execution = req.execution as Execution
            const { key } = execution
            const charge = await execution.step('charge', async ({ idempotencyKey }) => {
              charges.set(key, (charges.get(key) ?? new Set()).add(idempotencyKey))
              await pause()
              return idempotencyKey
            })
            const order = await execution.transaction('record', (tx) => insert(tx, key))
            await execution.step('notify', pause)
            res.status(201).json({ charge, order })
          })
        },
        { pawl: { storeTimeout: '1s' } },
      )
    const startWhole = () =>
      startApp(
        server.url,
        { transaction: true },
        (app) => {
          app.post('/', async (req, res) => {
            const { key, tx } = req.execution as Execution
            res.status(201).json({ order: await insert(tx, key) })
          })
        },
        { pawl: { storeTimeout: '1s' } },
      )
    const steps = (await Promise.all([start(), start()])).map(({ url }) => url)
    const whole = (await Promise.all([startWhole(), startWhole()])).map(({ url }) => url)
    const answers = new Map<string, RawResponse>()
    let loading = true
    const client = async (urls: string[], n: number) => {
      while (loading) {
        const key = freshKey()
        answers.set(key, await persistently(n % 2 ? urls : [...urls].reverse(), key))
      }
    }
    const clients = Array.from({ length: CLIENTS }, (_, n) => client(n % 3 ? steps : whole, n))
    const moreAnswers = async (n: number) => {
      const before = answers.size
      await waitFor(`${n} more answers`, () => answers.size >= before + n, 60_000)
    }
    for (const downMs of variants([0, 0, 1500], [0])) {
      await moreAnswers(cases(20, { proof: 40 }))
      await server.crash(downMs)
    }
    await moreAnswers(cases(20, { proof: 40 }))
    loading = false
    await Promise.all(clients)

    const { rows } = await pool.query(
      `select e.key, e.status, array(select o.id from orders o where o.key = e.key) as orders,
         (select jsonb_object_agg(s.name, s.output) from pawl.step_log s
          where s.execution_id = e.id) as steps
       from pawl.executions e`,
    )
    await pool.end()
    expect(rows).toHaveLength(answers.size)
    for (const { key, status, orders, steps } of rows) {
      const answer = answers.get(key) as RawResponse
      const { charge, order } = answer.json
      expect([answer.status, status, orders]).toEqual([201, 'done', [order]])
      if (charge === undefined) expect(steps).toBeNull()
      else {
        expect(steps).toEqual({ charge, record: order, notify: null })
        expect([...(charges.get(key) ?? [])]).toEqual([charge])
      }
    }
  }, 180_000)

  it('under running workflows: each ends once, behind what it had recorded', async () => {
    const calls = new Map<string, number>()
    const pawls = await Promise.all(
      [1, 2].map(async () => {
        const pawl = new Pawl({
          database: server.url,
          logger: silent,
          storeTimeout: '1s',
          processTimeout: '2s',
        })
        const workflow = pawl.workflow(
          'crossing',
          { retry: 1000 },
          async (execution, n: number) => {
            const first = await execution.step('first', ({ idempotencyKey }) => {
              calls.set(idempotencyKey, (calls.get(idempotencyKey) ?? 0) + 1)
              return idempotencyKey
            })
            await execution.sleep(1500)
            await execution.signal('go')
            await execution.step('second', () => n)
            return { n, first }
          },
        )
        await pawl.start()
        return { pawl, workflow }
      }),
    )
    const [one, other] = pawls as [(typeof pawls)[0], (typeof pawls)[0]]
    const handles = await one.workflow.startMany(
      Array.from({ length: cases(30, { proof: 200 }) }, (_, input) => ({ input })),
    )
    await server.crash(0)
    // A sender does not know whether its signal has arrived, and sends it again.
    const send = async (id: string) => {
      for (;;) {
        const sent = await other.pawl.signal(id, 'go', true, { id: 'once' }).then(
          () => true,
          (error) => error.code === 'execution-missing',
        )
        if (sent) return
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
    const sending = Promise.all(handles.map(({ id }) => send(id)))
    await new Promise((resolve) => setTimeout(resolve, 500))
    await server.crash(500)
    await sending
    for (const [n, handle] of handles.entries()) {
      let result: unknown
      await waitFor(`result ${n}`, async () => {
        result = await handle.result({ timeout: '5s' }).catch(() => undefined)
        return result !== undefined
      })
      expect(result).toMatchObject({ n })
      expect(calls.has((result as { first: string }).first)).toBe(true)
    }
    await Promise.all(pawls.map(({ pawl }) => pawl.stop()))
  }, 180_000)
})
