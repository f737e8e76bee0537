import type { Request, Response } from 'express'
import pg from 'pg'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { IdempotencyOptions } from '../../../lib/adapters/express.ts'
import { type Execution, PawlError, type PawlOptions, TerminalError } from '../../../lib/index.ts'
import type { PoolClient } from '../../../lib/store/database/transaction-host.ts'
import { startApp } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { startProxy } from '../../helpers/proxy.ts'
import { freshKey, request } from '../../helpers/request.ts'
import { startTap } from '../../helpers/tap.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []

beforeAll(() =>
  database.pool.query(
    `create table orders (id serial, item text unique);
     create table accounts (name text primary key, balance int);
     create table late (x int, constraint late_x unique (x) deferrable initially deferred)`,
  ),
)
beforeEach(() =>
  database.pool.query(
    `truncate orders, accounts, late; insert into accounts values ('a', 100), ('b', 100)`,
  ),
)
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

function openPool(url = database.url, max = 4): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max })
  pool.on('error', () => {})
  closing.push(() => pool.end())
  return pool
}

type Handler = (execution: Execution, req: Request, res: Response) => Promise<unknown>

/** An app whose handler answers with what it returns, and with the code of what it throws. */
async function start(
  handler: Handler,
  {
    pool = openPool(),
    route,
    pawl,
  }: { pool?: pg.Pool; route?: IdempotencyOptions<Request>; pawl?: Partial<PawlOptions> } = {},
) {
  const errors: unknown[] = []
  const app = await startApp(
    pool,
    route,
    (app) => {
      app.post('/', async (req, res) => {
        res.json((await handler(req.execution as Execution, req, res)) ?? null)
      })
      app.use((error: unknown, _req: Request, res: Response, _next: () => void) => {
        errors.push(error)
        const { status, message } = error as { status?: number; message: string }
        res.status(status ?? 500).json({ error: message })
      })
    },
    { pawl: { storeTimeout: '1s', ...pawl } },
  )
  return { post: (key: string) => request(`${app.url}/`, { key }), pool, errors, pawl: app.pawl }
}

const insert = (tx: PoolClient, item: string) =>
  tx.query('insert into orders (item) values ($1)', [item])

const items = async () =>
  (await database.pool.query('select item from orders order by id')).rows.map(({ item }) => item)

async function steps(key: string) {
  const sql = `select name, kind, status, output, error->>'message' as error, attempt
    from pawl.step_log where key = $1 order by position`
  return (await database.pool.query(sql, [key])).rows
}

const isRecord = (statement: string) => statement.includes('left join recorded on true')
const isCommit = (statement: string) => /^Q.{4}commit\0/s.test(statement)

describe('What a transaction that fails leaves', () => {
  it.each<[string, (tx: PoolClient) => unknown, RegExp]>([
    ['throws', () => Promise.reject(new Error('half way')), /half way/],
    ['returns what cannot be kept', () => ({ f: () => {} }), /f/],
    ['swallowed an error of Postgres', (tx) => tx.query('select 1/0').catch(() => 1), /aborted/],
    [
      'meets a constraint at the commit',
      (tx) => tx.query('insert into late values (1), (1)').then(() => 1),
      /late_x/,
    ],
  ])('fn that %s: nothing, and its connection stays in use', async (_, work, message) => {
    const { post, pool, errors } = await start(async (execution) => {
      await execution.step('pid', () => 1)
      return execution.transaction('record', async (tx) => {
        await insert(tx, 'lost')
        return work(tx)
      })
    })
    const key = freshKey()
    const clients = new Set<unknown>()
    pool.on('remove', (client) => clients.add(client))
    expect((await post(key)).status).toBe(500)
    expect(String(errors[0])).toMatch(message)
    expect(await items()).toEqual([])
    expect(await steps(key)).toMatchObject([{ name: 'pid' }])
    expect(clients.size).toBe(0)
    expect(pool.idleCount).toBe(pool.totalCount)
    const { rows } = await pool.query(
      `select count(*)::int as n from pg_stat_activity
       where datname = current_database() and state like 'idle in transaction%'`,
    )
    expect(rows).toEqual([{ n: 0 }])
  })

  it('fn that throws a TerminalError: its failure, without its writes', async () => {
    let runs = 0
    const { post } = await start(async (execution) =>
      execution.transaction('record', async (tx) => {
        runs++
        await insert(tx, 'lost')
        throw new TerminalError('sold out', { status: 503 })
      }),
    )
    const key = freshKey()
    const first = await post(key)
    expect(first.status).toBe(503)
    expect(await steps(key)).toMatchObject([{ status: 'failed', error: 'sold out' }])
    expect((await post(key)).body).toEqual(first.body)
    expect([runs, await items()]).toEqual([1, []])
  })

  it('a statement that arrives behind the entry and fails: nothing is recorded', async () => {
    // What nobody waits for, and aborts the transaction just before its commit.
    const tap = await startTap(database.url, {
      onReply: async ({ statement, forward }) => {
        if (isRecord(statement) && stray) await stray()
        forward()
      },
    })
    closing.push(() => tap.close())
    let stray: (() => Promise<unknown>) | undefined
    const { post } = await start(
      async (execution) => {
        return execution.transaction('record', async (tx) => {
          await insert(tx, `attempt ${execution.attempt}`)
          if (execution.attempt === 1) {
            stray = async () => {
              stray = undefined
              void tx.query('select 1/0').catch(() => {})
            }
          }
          return execution.attempt
        })
      },
      { pool: openPool(tap.url) },
    )
    const key = freshKey()
    expect((await post(key)).status).toBe(500)
    expect([await items(), await steps(key)]).toEqual([[], []])
    expect((await post(key)).json).toBe(2)
    expect(await items()).toEqual(['attempt 2'])
  })

  it('what fn still does after its end fails, and does not reach the next user of the connection', async () => {
    let late: Promise<unknown> | undefined
    let go = () => {}
    const { post, pool } = await start(
      async (execution) =>
        execution.transaction('record', async (tx) => {
          const gate = new Promise<void>((resolve) => {
            go = resolve
          })
          const slow = async () => {
            await insert(tx, 'first half')
            await gate
            await insert(tx, 'second half')
          }
          late = slow()
          late.catch(() => {})
          await Promise.all([late, Promise.reject(new Error('the other one'))])
        }),
      { pool: openPool(database.url, 1) },
    )
    expect((await post(freshKey())).status).toBe(500)
    const next = await pool.connect()
    try {
      await next.query('begin')
      go()
      await expect(late).rejects.toMatchObject({ code: 'no-transaction' })
      await next.query('commit')
    } finally {
      next.release()
    }
    expect(await items()).toEqual([])
  })

  it('settings of the transaction are gone with it', async () => {
    const { post, pool } = await start(
      async (execution) =>
        execution.transaction('record', async (tx) => {
          await tx.query("set local statement_timeout = '7s'; set local search_path = 'nowhere'")
          return (await tx.query('show statement_timeout')).rows[0].statement_timeout
        }),
      { pool: openPool(database.url, 1) },
    )
    expect((await post(freshKey())).json).toBe('7s')
    const { rows } = await pool.query(
      "select current_setting('statement_timeout') as t, current_setting('search_path') as p",
    )
    expect(rows).toEqual([{ t: '0', p: '"$user", public' }])
  })
})

describe('Isolation and conflicts', () => {
  it('runs at the level that is asked for, and refuses others', async () => {
    const { post } = await start(async (execution) => {
      const level = async (isolation?: 'serializable' | 'repeatable read') =>
        execution.transaction(
          'level',
          async (tx) => (await tx.query('show transaction_isolation')).rows[0],
          isolation && { isolation },
        )
      const wrong = () =>
        execution.transaction('wrong', () => 1, { isolation: 'snapshot' as never })
      return [
        await level(),
        await level('repeatable read'),
        await level('serializable'),
        await wrong().catch((error: PawlError) => error.code),
      ].map((row) => row.transaction_isolation ?? row)
    })
    expect((await post(freshKey())).json).toEqual([
      'read committed',
      'repeatable read',
      'serializable',
      'invalid-option',
    ])
  })

  it('a real deadlock is resolved: both take effect', async () => {
    const arrived = new Set<string>()
    const { post } = await start(
      async (execution) => {
        let runs = 0
        const [from, to] = execution.key.endsWith('ab') ? ['a', 'b'] : ['b', 'a']
        await execution.transaction('move', async (tx) => {
          runs++
          await tx.query('update accounts set balance = balance - 1 where name = $1', [from])
          arrived.add(execution.key)
          if (runs === 1) await waitFor('the other', () => arrived.size === 2)
          await tx.query('update accounts set balance = balance + 1 where name = $1', [to])
        })
        return runs
      },
      { pawl: { storeTimeout: '10s' } },
    )
    const key = freshKey()
    const answers = await Promise.all([post(`${key}-ab`), post(`${key}-ba`)])
    expect(answers.map(({ json }) => json).sort()).toEqual([1, 2])
    const { rows } = await database.pool.query('select balance from accounts')
    expect(rows).toEqual([{ balance: 100 }, { balance: 100 }])
  })

  it('many that change one row, serializable: each takes effect once', async () => {
    const { post } = await start(
      async (execution) =>
        execution.transaction(
          'add',
          async (tx) => {
            const { rows } = await tx.query(`select balance from accounts where name = 'a'`)
            await tx.query(`update accounts set balance = $1 where name = 'a'`, [
              rows[0].balance + 1,
            ])
          },
          { isolation: 'serializable' },
        ),
      { pool: openPool(database.url, 6) },
    )
    const keys = Array.from({ length: 12 }, freshKey)
    const persistently = async (key: string) => {
      while ((await post(key)).status !== 200);
    }
    await Promise.all(keys.map(persistently))
    const { rows } = await database.pool.query(`select balance from accounts where name = 'a'`)
    expect(rows).toEqual([{ balance: 112 }])
  })

  it('gives up after five runs, and the error is that of Postgres', async () => {
    let runs = 0
    const { post, errors } = await start(async (execution) =>
      execution.transaction('record', (tx) => {
        runs++
        return tx.query(`do $$ begin raise sqlstate '40001'; end $$`)
      }),
    )
    expect((await post(freshKey())).status).toBe(500)
    expect(runs).toBe(5)
    expect(errors).toMatchObject([{ code: '40001' }])
  })
})

describe('Connections that break', () => {
  it('in the middle of fn: nothing is left, the broken connection is not used again', async () => {
    const proxy = await startProxy(database.url)
    closing.push(() => proxy.close())
    const { post, pool } = await start(
      async (execution) => {
        await execution.step('before', () => 1)
        return execution.transaction('record', async (tx) => {
          await insert(tx, `attempt ${execution.attempt}`)
          if (execution.attempt === 1) proxy.cut()
          await tx.query('select 1')
          return execution.attempt
        })
      },
      { pool: openPool(proxy.url) },
    )
    const key = freshKey()
    expect((await post(key)).status).toBe(500)
    expect((await post(key)).json).toBe(2)
    expect(await items()).toEqual(['attempt 2'])
    expect(await steps(key)).toMatchObject([{ attempt: 1 }, { name: 'record', attempt: 2 }])
    expect(pool.idleCount).toBe(pool.totalCount)
  })

  it('the reply of the commit is lost: it is found committed, and fn does not run again', async () => {
    let runs = 0
    let cuts = 0
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward, destroy }) => {
        if (!isCommit(statement) || cuts > 0) return forward()
        cuts++
        destroy()
      },
    })
    closing.push(() => tap.close())
    const { post } = await start(
      async (execution) =>
        execution.transaction('record', async (tx) => {
          runs++
          await insert(tx, 'once')
          return { at: new Date(0) }
        }),
      { pool: openPool(tap.url) },
    )
    const key = freshKey()
    expect((await post(key)).json).toEqual({ at: '1970-01-01T00:00:00.000Z' })
    expect([runs, cuts]).toEqual([1, 1])
    expect(await items()).toEqual(['once'])
    expect(await steps(key)).toHaveLength(1)
  })

  it('a commit that is still under way when its connection breaks is waited for', async () => {
    // Postgres gets the commit late, long after the app has lost its connection.
    let broken = false
    let forwardLate = () => {}
    const tap = await startTap(database.url, {
      onStatement: ({ statement, forward, destroy }) => {
        if (!isCommit(statement) || broken) return forward()
        broken = true
        forwardLate = forward
        destroy('app')
      },
    })
    closing.push(() => tap.close())
    const { post } = await start(
      async (execution) => {
        setTimeout(() => forwardLate(), 300)
        const once = () =>
          execution.transaction('record', async (tx) => {
            await insert(tx, `attempt ${execution.attempt}`)
            return 'recorded'
          })
        return once().catch((error) => `not recorded: ${error.message}`)
      },
      { pool: openPool(tap.url), pawl: { storeTimeout: '5s' } },
    )
    const key = freshKey()
    const answer = await post(key)
    expect(answer.json).toBe('recorded')
    expect(await items()).toEqual(['attempt 1'])
    expect(await steps(key)).toHaveLength(1)
  })

  it('the reply of the commit is lost and the store is away: unknown; the next attempt adopts', async () => {
    let runs = 0
    let away = false
    const tap = await startTap(database.url, {
      onStatement: ({ forward, destroy }) => (away ? destroy() : forward()),
      onReply: ({ statement, forward, destroy }) => {
        if (isCommit(statement)) away = true
        if (away) destroy()
        else forward()
      },
    })
    closing.push(() => tap.close())
    const { post, errors } = await start(
      async (execution) =>
        execution.transaction('record', async (tx) => {
          runs++
          await insert(tx, 'once')
          return 'recorded'
        }),
      { pool: openPool(tap.url), pawl: { storeTimeout: '1s' } },
    )
    const key = freshKey()
    expect((await post(key)).status).toBe(500)
    expect(errors).toMatchObject([{ code: 'store-unavailable' }])
    expect(String(errors[0])).toMatch(/unknown whether transaction "record" has committed/)
    away = false
    await waitFor('the store', async () => (await post(key)).json === 'recorded')
    expect([runs, await items()]).toEqual([1, ['once']])
  }, 90_000)
})

describe('An attempt that others take for dead', () => {
  /** An attempt in the middle of its transaction, whose process counts as dead. */
  async function zombie(key: string) {
    let open = () => {}
    const opened = new Promise<void>((resolve) => {
      open = resolve
    })
    let caught: unknown
    const { post } = await start(
      async (execution) => {
        await execution.step('charge', () => 1)
        const recorded = execution.transaction('record', async (tx) => {
          await insert(tx, 'zombie')
          await opened
        })
        await recorded.catch((error) => {
          caught = error
          throw error
        })
      },
      { pawl: { processTimeout: '10 minutes' }, route: { wait: '20s' } },
    )
    const answer = post(key)
    await waitFor('fn', async () => {
      const { rows } = await database.pool.query(
        `select from pg_stat_activity
         where datname = current_database() and state = 'idle in transaction'`,
      )
      return rows.length === 1
    })
    await database.pool.query(
      `update pawl.processes set expires_at = 'epoch'
       where id = (select owner from pawl.executions where key = $1)`,
      [key],
    )
    return { open: () => open(), answer, caught: () => caught }
  }

  it('its transaction leaves nothing once the execution has an outcome without it', async () => {
    const key = freshKey()
    const stale = await zombie(key)
    const other = await start(async (execution, _req, res) => {
      await execution.step('charge', () => 2)
      res.status(410)
      return 'too late'
    })
    const second = await other.post(key)
    expect([second.status, second.json]).toEqual([410, 'too late'])
    stale.open()
    expect((await stale.answer).body).toEqual(second.body)
    expect(stale.caught()).toMatchObject({ code: 'superseded' })
    expect([await items(), await steps(key)]).toMatchObject([[], [{ name: 'charge' }]])
  })

  it('its transaction leaves nothing once another has begun to undo the execution', async () => {
    const key = freshKey()
    const stale = await zombie(key)
    let undone = () => {}
    let undoing = false
    const compensate = () =>
      new Promise<void>((resolve) => {
        undoing = true
        undone = resolve
      })
    const other = await start(async (execution, _req, res) => {
      await execution.step('charge', () => 2, { compensate })
      res.status(410)
      return 'too late'
    })
    const second = other.post(key)
    await waitFor('the compensation', () => undoing)
    stale.open()
    await waitFor('the end of the transaction', stale.caught)
    expect(stale.caught()).toMatchObject({ code: 'superseded' })
    undone()
    expect((await second).status).toBe(410)
    await stale.answer
    expect(await items()).toEqual([])
  })
})

describe('Pools', () => {
  it('exhausted: an error that says so after the timeout, and the next attempt runs', async () => {
    const { post, pool, errors } = await start(
      async (execution) => {
        await execution.step('before', () => 1)
        const busy = execution.attempt === 1 ? await takeAll(pool) : []
        try {
          return await execution.transaction('record', (tx) => insert(tx, 'once').then(() => 1))
        } finally {
          for (const client of busy) client.release()
        }
      },
      { pool: openPool(database.url, 3), pawl: { storeTimeout: '1s' } },
    )
    const key = freshKey()
    expect((await post(key)).status).toBe(500)
    expect(errors).toMatchObject([
      { code: 'pool-exhausted', message: expect.stringContaining('3 of 3 are in use') },
    ])
    expect((await post(key)).json).toBe(1)
    expect(await items()).toEqual(['once'])
    expect(pool.idleCount).toBe(pool.totalCount)
  })

  it('of one connection: transactions of many requests run one after the other', async () => {
    const { post } = await start(
      async (execution) => {
        await execution.step('before', () => 1)
        return execution.transaction('record', (tx) => insert(tx, execution.key).then(() => 1))
      },
      { pool: openPool(database.url, 1), pawl: { storeTimeout: '20s' } },
    )
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(freshKey())))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(await items()).toHaveLength(20)
  })

  it('a step or a transaction inside a transaction is refused, and holds nothing', async () => {
    const { post, pool } = await start(async (execution) => {
      const inside = (work: () => Promise<unknown>) =>
        execution.transaction('outer', async (tx) => {
          await insert(tx, 'outer')
          await work()
        })
      const code = (error: PawlError) => error.code
      return [
        await inside(() => execution.step('inner', () => 1)).catch(code),
        await inside(() => execution.transaction('inner', () => 1)).catch(code),
      ]
    })
    expect((await post(freshKey())).json).toEqual(['step-nested', 'step-nested'])
    expect(await items()).toEqual([])
    expect(pool.idleCount).toBe(pool.totalCount)
  })

  it('a client that fn releases stays what it is until the end', async () => {
    const { post, errors } = await start(async (execution) =>
      execution.transaction('record', async (tx) => {
        await insert(tx, 'lost')
        tx.release()
      }),
    )
    expect((await post(freshKey())).status).toBe(500)
    expect(errors).toMatchObject([{ message: expect.stringContaining('release') }])
    expect(errors[0]).toBeInstanceOf(PawlError)
    expect(await items()).toEqual([])
  })
})

async function takeAll(pool: pg.Pool): Promise<pg.PoolClient[]> {
  return Promise.all(Array.from({ length: pool.options.max }, () => pool.connect()))
}
