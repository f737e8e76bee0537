import { connect } from 'node:net'
import type { Request, Response } from 'express'
import pg from 'pg'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../../lib/adapters/express.ts'
import type { Execution, PawlError, PawlOptions } from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { door } from '../helpers/door.ts'
import { freshKey, request } from '../helpers/request.ts'
import { startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []

beforeAll(() => database.pool.query('create table orders (id serial, item text)'))
beforeEach(() => database.pool.query('truncate orders'))
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

type Handler = (execution: Execution, req: Request, res: Response) => unknown

async function start(
  handler: Handler,
  {
    url = database.url,
    max = 4,
    route,
    pawl,
  }: {
    url?: string
    max?: number
    route?: IdempotencyOptions<Request>
    pawl?: Partial<PawlOptions>
  } = {},
) {
  const pool = new pg.Pool({ connectionString: url, max })
  pool.on('error', () => {})
  closing.push(() => pool.end())
  const app = await startApp(
    pool,
    { transaction: true, wait: 0, ...route },
    (app) => {
      app.post('/', (req, res) => handler(req.execution as Execution, req, res))
    },
    { pawl: { storeTimeout: '2s', drainTimeout: 0, ...pawl } },
  )
  const post = (key: string, options: object = {}) => request(`${app.url}/`, { key, ...options })
  return { ...app, post, pool }
}

const insert = (execution: Execution, item = `attempt ${execution.attempt}`) =>
  execution.tx.query('insert into orders (item) values ($1)', [item])

const items = async () =>
  (await database.pool.query('select item from orders order by id')).rows.map(({ item }) => item)

const state = async (key: string) => {
  const sql = 'select status, attempt from pawl.execution_log where key = $1'
  return (await database.pool.query(sql, [key])).rows[0]
}

const openTransactions = async () => {
  const sql = `select count(*)::int as n from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'`
  return (await database.pool.query(sql)).rows[0].n
}

const listeners = async () => {
  const sql = `select count(*)::int as n from pg_stat_activity
    where datname = current_database() and query like 'listen %'`
  return (await database.pool.query(sql)).rows[0].n
}

const isCommit = (statement: string) => /^Q.{4}commit\0/s.test(statement)

describe('What a request that is a transaction leaves', () => {
  it('no byte of its answer leaves before the commit', async () => {
    let held: (() => void) | undefined
    const tap = await startTap(database.url, {
      onStatement: ({ statement, forward }) => {
        if (isCommit(statement) && !held) held = forward
        else forward()
      },
    })
    closing.push(() => tap.close())
    const { url } = await start(
      async (execution, _req, res) => {
        await insert(execution)
        res.status(201).json({ ok: true })
      },
      { url: tap.url },
    )
    const key = freshKey()
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
    })
    socket.write(
      `POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: ${key}\r\nContent-Length: 0\r\n\r\n`,
    )
    await waitFor('the commit', () => held)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(received).toBe('')
    expect(await items()).toEqual([])
    held?.()
    await waitFor('the answer', () => received.includes('201 Created'))
    socket.destroy()
    expect([await items(), await state(key)]).toEqual([
      ['attempt 1'],
      { status: 'done', attempt: 1 },
    ])
  })

  it.each<[string, Handler, number]>([
    ['a 500', (_, _req, res) => res.status(500).json({}), 500],
    ['a 503', (_, _req, res) => res.sendStatus(503), 503],
    ['a throw', () => Promise.reject(new Error('thrown')), 500],
    ['next(error)', (_, req) => req.next?.(new Error('passed on')), 500],
    ['401, which may succeed later', (_, _req, res) => res.sendStatus(401), 401],
    ['429', (_, _req, res) => res.sendStatus(429), 429],
  ])('%s: nothing, and the retry runs it again', async (_, end, status) => {
    const { post, pool } = await start(async (execution, req, res) => {
      await insert(execution)
      if (execution.attempt === 1) return end(execution, req, res)
      res.sendStatus(201)
    })
    const key = freshKey()
    expect((await post(key)).status).toBe(status)
    expect([await items(), await state(key)]).toEqual([[], { status: 'released', attempt: 1 }])
    expect((await post(key)).status).toBe(201)
    expect(await items()).toEqual(['attempt 2'])
    expect(await openTransactions()).toBe(0)
    expect(pool.idleCount).toBe(pool.totalCount)
  })

  it.each([400, 404, 409, 422])('%i: its writes and the answer', async (status) => {
    const { post } = await start(async (execution, _req, res) => {
      await insert(execution)
      res.status(status).json({ refused: true })
    })
    const key = freshKey()
    const first = await post(key)
    expect(first.status).toBe(status)
    expect((await post(key)).body).toEqual(first.body)
    expect(await items()).toEqual(['attempt 1'])
  })

  it('time that is up: nothing; what the handler does later is refused, and its answer is not the one', async () => {
    const { open, pass } = door()
    let late: Promise<unknown> | undefined
    const { post, pool } = await start(
      async (execution, _req, res) => {
        await insert(execution)
        if (execution.attempt === 1) {
          await pass()
          late = (async () => insert(execution, 'late'))()
          await late.catch(() => {})
        }
        res.status(201).json({ attempt: execution.attempt })
      },
      { route: { timeout: 300 }, max: 1 },
    )
    const key = freshKey()
    const first = await post(key)
    expect([first.status, first.json.type]).toEqual([504, 'urn:pawl:problem:timed-out'])
    expect(await items()).toEqual([])
    expect(pool.idleCount).toBe(pool.totalCount)
    open()
    await waitFor('the late write', () => late !== undefined)
    await expect(late).rejects.toMatchObject({ code: 'no-transaction' })
    const second = await post(key)
    expect(second.json).toEqual({ attempt: 2 })
    expect((await post(key)).body).toEqual(second.body)
    expect(await items()).toEqual(['attempt 2'])
  })

  it('a client that hangs up: the handler goes on, and the answer waits for its retry', async () => {
    const { open, reached, pass } = door()
    const { post } = await start(async (execution, _req, res) => {
      await insert(execution)
      await pass()
      res.status(201).json({ attempt: execution.attempt })
    })
    const key = freshKey()
    const client = new AbortController()
    const gone = post(key, { signal: client.signal })
    await reached
    client.abort()
    await expect(gone).rejects.toThrow()
    open()
    await waitFor('the commit', async () => (await state(key)).status === 'done')
    const retry = await post(key)
    expect([retry.json, retry.headers['idempotent-replayed']]).toEqual([{ attempt: 1 }, 'true'])
    expect(await items()).toEqual(['attempt 1'])
  })

  it.each<[string, (res: Response) => unknown]>([
    ['larger than maxBody', (res) => res.status(201).send(Buffer.alloc(5000, 'x'))],
    [
      'an event stream',
      (res) => {
        res.status(201).type('text/event-stream').write('data: 1\n\n')
        setTimeout(() => res.end('data: 2\n\n'), 20)
      },
    ],
  ])('an answer that is %s: its writes are committed before its first byte', async (_, answer) => {
    const { post } = await start(
      async (execution, _req, res) => {
        await insert(execution)
        answer(res)
      },
      { route: { maxBody: 1000 } },
    )
    const key = freshKey()
    expect((await post(key)).status).toBe(201)
    expect([await items(), await state(key)]).toEqual([
      ['attempt 1'],
      { status: 'done', attempt: 1 },
    ])
    const replay = await post(key)
    expect([replay.status, replay.json.type]).toEqual([201, 'urn:pawl:problem:body-not-kept'])
    expect(await items()).toEqual(['attempt 1'])
  })

  it('a write conflict that only the commit finds: 503, and the retry runs it again', async () => {
    const { post } = await start(async (execution, _req, res) => {
      await execution.tx.query('set transaction isolation level serializable')
      await execution.tx.query('select count(*) from orders')
      await insert(execution)
      if (execution.attempt === 1) {
        const other = await database.pool.connect()
        await other.query('begin isolation level serializable')
        await other.query('select count(*) from orders')
        await other.query(`insert into orders (item) values ('theirs')`)
        await other.query('commit')
        other.release()
      }
      res.sendStatus(201)
    })
    const key = freshKey()
    const first = await post(key)
    expect([first.status, first.json.type]).toEqual([503, 'urn:pawl:problem:store-unavailable'])
    expect(await items()).toEqual(['theirs'])
    expect((await post(key)).status).toBe(201)
    expect(await items()).toEqual(['theirs', 'attempt 2'])
  })

  it('statements that failed and whose errors nobody let out: nothing', async () => {
    const { post } = await start(async (execution, _req, res) => {
      await insert(execution)
      if (execution.attempt === 1) await execution.tx.query('select 1/0').catch(() => {})
      res.sendStatus(201)
    })
    const key = freshKey()
    expect((await post(key)).status).toBe(503)
    expect([await items(), await state(key)]).toEqual([[], { status: 'released', attempt: 1 }])
    expect((await post(key)).status).toBe(201)
  })
})

describe('Connections that break in a request that is a transaction', () => {
  it.each(['lost', 'late'] as const)('a commit whose reply is %s is a commit', async (how) => {
    let happened = false
    const tap = await startTap(database.url, {
      onStatement: ({ statement, forward, destroy }) => {
        if (how !== 'late' || happened || !isCommit(statement)) return forward()
        happened = true
        destroy('app')
        setTimeout(forward, 300)
      },
      onReply: ({ statement, forward, destroy }) => {
        if (how !== 'lost' || happened || !isCommit(statement)) return forward()
        happened = true
        destroy()
      },
    })
    closing.push(() => tap.close())
    let runs = 0
    const { post } = await start(
      async (execution, _req, res) => {
        runs++
        await insert(execution)
        res.status(201).json({ ok: true })
      },
      { url: tap.url },
    )
    const key = freshKey()
    const first = await post(key)
    expect([first.status, first.json]).toEqual([201, { ok: true }])
    expect((await post(key)).body).toEqual(first.body)
    expect([runs, happened, await items()]).toEqual([1, true, ['attempt 1']])
  })

  it('the reply of the commit is lost and the store is away: 503, and the retry gets the outcome', async () => {
    let away = false
    const tap = await startTap(database.url, {
      onStatement: ({ forward, destroy }) => (away ? destroy() : forward()),
      onReply: ({ statement, forward, destroy }) => {
        if (isCommit(statement)) away = true
        away ? destroy() : forward()
      },
    })
    closing.push(() => tap.close())
    let runs = 0
    const { post } = await start(
      async (execution, _req, res) => {
        runs++
        await insert(execution)
        res.status(201).json({ ok: true })
      },
      { url: tap.url, pawl: { storeTimeout: '500ms' } },
    )
    const key = freshKey()
    const first = await post(key)
    expect([first.status, first.json.detail]).toEqual([
      503,
      expect.stringMatching(/could not be recorded yet/),
    ])
    away = false
    await waitFor('the store', async () => (await post(key)).status === 201)
    expect([runs, await items()]).toEqual([1, ['attempt 1']])
  })

  it('none to be had for the transaction: 503 at once, nothing ran, and the retry runs', async () => {
    let away = false
    const tap = await startTap(database.url, {
      onStatement: ({ statement, forward, destroy }) => {
        if (/^Q.{4}begin/s.test(statement) && blocked) away = true
        away ? destroy() : forward()
      },
    })
    closing.push(() => tap.close())
    let blocked = true
    let runs = 0
    const { post } = await start(
      async (execution, _req, res) => {
        runs++
        await insert(execution)
        res.sendStatus(201)
      },
      { url: tap.url, route: { timeout: '10 minutes' } },
    )
    const key = freshKey()
    const first = await post(key)
    expect([first.status, first.json.type, runs]).toEqual([
      503,
      'urn:pawl:problem:store-unavailable',
      0,
    ])
    away = false
    blocked = false
    await waitFor('the store', async () => (await post(key)).status === 201)
    expect([runs, await items()]).toEqual([1, ['attempt 2']])
  })
})

describe('Duplicates of a request that is a transaction', () => {
  it('are refused or wait, here and elsewhere, and hold no connection', async () => {
    const { open, reached, pass } = door()
    const handler: Handler = async (execution, _req, res) => {
      await insert(execution)
      await pass()
      res.status(201).json({ attempt: execution.attempt })
    }
    const here = await start(handler, { route: { wait: '30s' } })
    const elsewhere = await start(handler, { route: { wait: '30s' } })
    const impatient = await start(handler)
    const key = freshKey()
    const first = here.post(key)
    await reached
    expect((await impatient.post(key)).json.type).toBe('urn:pawl:problem:in-progress')
    const waiting = [here, here, here, elsewhere, elsewhere, elsewhere].map(({ post }) => post(key))
    await waitFor('all to wait', async () => (await listeners()) === 1)
    const busy = ({ pool }: typeof here) => pool.totalCount - pool.idleCount
    expect([busy(here), busy(elsewhere), await openTransactions()]).toEqual([1, 0, 1])
    open()
    const answers = await Promise.all([first, ...waiting])
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set(['{"attempt":1}']))
    expect(await items()).toEqual(['attempt 1'])
  })
})

describe('A pool that requests fill with their transactions', () => {
  it('of one connection: they run one after the other', async () => {
    const { post } = await start(
      async (execution, _req, res) => {
        await insert(execution, execution.key)
        res.sendStatus(201)
      },
      { max: 1, pawl: { storeTimeout: '30s' } },
    )
    const answers = await Promise.all(Array.from({ length: 12 }, () => post(freshKey())))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
    expect(await items()).toHaveLength(12)
  })

  it('still lets their steps be recorded', async () => {
    const { post } = await start(
      async (execution, _req, res) => {
        await insert(execution, execution.key)
        const charge = await execution.step('charge', () => 'charged')
        res.status(201).json(charge)
      },
      { max: 4, pawl: { storeTimeout: '10s' }, route: { timeout: '10s' } },
    )
    const answers = await Promise.all(Array.from({ length: 12 }, () => post(freshKey())))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
    expect(await items()).toHaveLength(12)
  })

  it('of one connection: a step is refused, since it could never be recorded', async () => {
    const { post } = await start(
      async (execution, _req, res) => {
        const refused = await execution.step('charge', () => 1).catch((error) => error.code)
        res.status(201).json(refused)
      },
      { max: 1 },
    )
    expect((await post(freshKey())).json).toBe('step-nested')
  })

  it('does not make its process look dead', async () => {
    const { open, pass } = door()
    const handler: Handler = async (execution, _req, res) => {
      await insert(execution, execution.key)
      await pass()
      res.status(201).json({ attempt: execution.attempt })
    }
    const pawl = { processTimeout: '1s', storeTimeout: '400ms' } as const
    const full = await start(handler, { max: 2, pawl })
    const other = await start(handler, { pawl })
    const key = freshKey()
    const first = full.post(key)
    await waitFor('the claim', async () => (await state(key))?.status === 'running')
    // As the app itself may do.
    const taken = await full.pool.connect()
    await new Promise((resolve) => setTimeout(resolve, 2500))
    const duplicate = await other.post(key)
    taken.release()
    open()
    expect(duplicate.json?.type).toBe('urn:pawl:problem:in-progress')
    expect((await first).json).toEqual({ attempt: 1 })
  })
})

describe('The end of the process', () => {
  it('stop() rolls back what does not end in time, and gives it back', async () => {
    const { reached, pass } = door()
    const { post, pawl, pool } = await start(async (execution) => {
      await insert(execution)
      await pass()
    })
    const key = freshKey()
    const client = post(key)
    client.catch(() => {})
    await reached
    await pawl.stop()
    expect([await items(), await state(key)]).toEqual([[], { status: 'released', attempt: 1 }])
    await waitFor('the connection', () => pool.idleCount === pool.totalCount)
    expect(await openTransactions()).toBe(0)
  })
})

describe('Misuse', () => {
  it('a transaction inside, and tx on another route, are refused', async () => {
    const code = (error: PawlError) => error.code
    const inside = await start(async (execution, _req, res) => {
      res.json(await execution.transaction('inner', () => 1).catch(code))
    })
    expect((await inside.post(freshKey())).json).toBe('step-nested')
    const without = await start(
      (execution, _req, res) => {
        try {
          res.json(execution.tx)
        } catch (error) {
          res.json(code(error as PawlError))
        }
      },
      { route: { transaction: false } },
    )
    expect((await without.post(freshKey())).json).toBe('no-transaction')
  })
})
