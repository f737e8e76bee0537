import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createIdempotentFetch, type IdempotentResponse } from '../../lib/client/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { type Fault, startFaultyProxy } from '../helpers/faulty-proxy.ts'
import { cases } from '../helpers/proof.ts'

const CALLS = cases(100, { proof: 1200 })
const CONCURRENT = 64

const database = withDatabase()

beforeAll(() => database.pool.query('create table effects (call int not null)'))
afterAll(() => database.pool.query('drop table effects'))

/** Of twelve requests, seven go well. */
const FAULTS: Fault[] = [
  ...Array<Fault>(7).fill('none'),
  'reset before',
  'reset after',
  'reset in the middle',
  '503 before',
  '502 after',
]

describe('chaos between client and server', () => {
  it(`${CALLS} calls: each takes effect once, and every caller gets its answer`, async () => {
    let taken = 0
    const server = await startApp(
      database.url,
      // A 5xx of the handler's is one more attempt, not the outcome.
      { scope: () => 'chaos', resumable: true },
      (app, express) => {
        app.post('/calls/:call', express.json(), async (req, res) => {
          const call = Number(req.params.call)
          if (req.execution?.attempt === 1 && call % 10 === 0) {
            res.status(500).json({ call, effect: 'none yet' })
            return
          }
          await database.pool.query('insert into effects values ($1)', [call])
          res.status(201).json({ call, effect: ++taken, of: req.body.of, padding: 'x'.repeat(500) })
        })
      },
    )
    let requests = 0
    const proxy = await startFaultyProxy(server.url, () => {
      requests += 1
      return requests % 24 === 0
        ? 'slow'
        : (FAULTS[Math.floor(Math.random() * FAULTS.length)] as Fault)
    })
    const fetch = createIdempotentFetch({
      maxAttempts: 100,
      baseDelay: 5,
      maxDelay: 100,
      // Ends the slow ones, and no other however busy the machine is.
      attemptTimeout: 6000,
      timeout: 280_000,
      // Two of five requests fail, for ever: the budget is there to stop just that.
      budget: false,
    })

    const answers: Pick<IdempotentResponse, 'status' | 'attempts' | 'replayed'>[] = []
    const bodies: { call: number; effect: number; of: string }[] = []
    let next = 0
    const caller = async () => {
      while (next < CALLS) {
        const call = next++
        const response = await fetch(`${proxy.url}/calls/${call}`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ of: `caller ${call}` }),
        })
        const { status, attempts, replayed } = response
        answers[call] = { status, attempts, replayed }
        bodies[call] = (await response.json()) as (typeof bodies)[number]
      }
    }
    try {
      await Promise.all(Array.from({ length: CONCURRENT }, caller))
    } finally {
      await proxy.close()
    }

    expect(answers.map(({ status }) => status)).toEqual(Array(CALLS).fill(201))
    for (const [call, body] of bodies.entries()) {
      expect(body).toMatchObject({ call, of: `caller ${call}` })
    }
    const effects = await database.pool.query(
      'select count(*)::int as all, count(distinct call)::int as calls from effects',
    )
    expect(effects.rows).toEqual([{ all: CALLS, calls: CALLS }])
    expect(new Set(bodies.map(({ effect }) => effect)).size).toBe(CALLS)

    // It was chaos: each fault many times, and many answers are replays of one that was lost.
    for (const fault of [...FAULTS, 'slow' as const]) {
      expect(proxy.happened.get(fault), fault).toBeGreaterThan(CALLS / 24)
    }
    const attempts = answers.reduce((sum, answer) => sum + answer.attempts, 0)
    expect(attempts).toBe(requests)
    expect(answers.filter((answer) => answer.replayed).length).toBeGreaterThan(CALLS / 6)
  }, 300_000)
})
