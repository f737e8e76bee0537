import pg from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { Pawl } from '../../../lib/index.ts'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { openPool } from '../../../lib/store/database/pg-pool.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { startProxy } from '../../helpers/proxy.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
const closing: (() => Promise<unknown>)[] = []

function openPoolOf(max: number, url = database.url): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max })
  closing.push(() => pool.end())
  return pool
}

afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

describe('a pool that is exhausted', () => {
  it("does not keep Pawl's statements waiting, and is named where a transaction waits in vain", async () => {
    const pool = openPoolOf(2)
    const db = new NodePostgres(pool, 500, false)
    const busy = await Promise.all([pool.connect(), pool.connect()])
    expect(await db.query('select 1')).toEqual([[1]])
    expect(await db.urgent('select 1')).toEqual([[1]])
    expect(await db.transaction((query) => query('select 1'))).toEqual([[1]])
    await expect(db.host.transaction(async () => 1, undefined)).rejects.toMatchObject({
      code: 'pool-exhausted',
      message: expect.stringContaining('within 500 ms: 2 of 2 are in use'),
    })
    for (const client of busy) client.release()
    await waitFor('the clients', () => pool.idleCount === 2 && pool.waitingCount === 0)
    expect(await db.host.transaction(async () => 1, undefined)).toBe(1)
    await db.close()
  })

  it('of one connection is shared: an error after the timeout, and a client that comes too late goes back', async () => {
    const pool = openPoolOf(1)
    const db = new NodePostgres(pool, 200, false)
    const busy = await pool.connect()
    const sent = db.query('select 1')
    await expect(sent).rejects.toThrow("1 of 1 connections of the app's pool are in use")
    busy.release()
    await waitFor('the client', () => pool.idleCount === 1 && pool.waitingCount === 0)
    expect(await db.query('select 1')).toEqual([[1]])
  })
})

describe("Pawl's own connections", () => {
  it("are like the pool's: its options, its clients, what it does on connect; and shared by all that it serves", async () => {
    class Client extends pg.Client {}
    const password = () => new URL(database.url).password
    const { hostname, port, username, pathname } = new URL(database.url)
    const pool = new pg.Pool({
      host: hostname,
      port: Number(port),
      user: username,
      database: pathname.slice(1),
      password,
      application_name: 'like the pool',
      max: 20,
      Client,
    })
    closing.push(() => pool.end())
    const [one, other] = [1, 2].map(() => new NodePostgres(pool, 5000, false)) as [
      NodePostgres,
      NodePostgres,
    ]
    let connected = 0
    pool.on('connect', (client) => {
      expect(client).toBeInstanceOf(Client)
      connected++
    })
    const sql = "select current_setting('application_name'), pg_backend_pid(), pg_sleep(0.2)"
    const sent = Array.from({ length: 20 }, (_, n) => (n % 2 ? one : other).query(sql))
    const rows = (await Promise.all(sent)).map(([row]) => row as [string, number])
    expect(new Set(rows.map(([name]) => name))).toEqual(new Set(['like the pool']))
    expect([new Set(rows.map(([, pid]) => pid)).size, connected, pool.totalCount]).toEqual([
      3, 3, 0,
    ])
    await one.close()
    expect(await other.query('select 1')).toEqual([[1]])
    await other.close()
  })
})

describe('the connection that listens', () => {
  const listening = async () => {
    const sql = `select pid from pg_stat_activity
      where datname = current_database() and query like 'listen "shared %'`
    return (await database.pool.query(sql)).rows.map(({ pid }) => pid as number)
  }

  it('is one for all that share the pool, so that the others are left for statements', async () => {
    const pool = openPoolOf(10)
    const all = Array.from({ length: 8 }, () => new NodePostgres(pool, 5000, false))
    const heard: string[] = []
    const lost: number[] = []
    const listen = (n: number) =>
      (all[n] as NodePostgres).listen(
        `shared ${n % 2}`,
        (payload) => heard.push(`${n} ${payload}`),
        () => lost.push(n),
      )
    const stops = await Promise.all(all.map((_, n) => listen(n)))
    expect(await listening()).toHaveLength(1)
    expect(await Promise.all(all.map((db) => db.query('select 1')))).toEqual(all.map(() => [[1]]))
    await stops[3]?.()
    await all[0]?.query(`select pg_notify('shared 1', 'news')`)
    await waitFor('the news', () => heard.length >= 3)
    expect(heard).toEqual(['1 news', '5 news', '7 news'])

    await database.pool.query('select pg_terminate_backend($1)', await listening())
    await waitFor('the loss', () => lost.length >= 7)
    expect(lost).toEqual([0, 1, 2, 4, 5, 6, 7])
    await Promise.all(stops.map((stop) => stop()))
    const stop = await listen(2)
    await all[1]?.query(`select pg_notify('shared 0', 'more')`)
    await waitFor('more news', () => heard.includes('2 more'))
    await stop()
    await waitFor('its end', async () => (await listening()).length === 0)
    expect(heard).toHaveLength(4)
    for (const db of all) await db.close()
  })

  it('is opened again after an attempt that failed', async () => {
    const proxy = await startProxy(database.url)
    const db = new NodePostgres(openPoolOf(10, proxy.url), 1000, false)
    proxy.refuse()
    await expect(
      db.listen(
        'shared 0',
        () => {},
        () => {},
      ),
    ).rejects.toThrow()
    proxy.restore()
    const stop = await db.listen(
      'shared 0',
      () => {},
      () => {},
    )
    await stop()
    await db.close()
  })
})

describe('a statement that takes too long', () => {
  const waiting = async () => {
    const sql = `select count(*)::int as n from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`
    return (await database.pool.query(sql)).rows[0].n as number
  }

  it('is cancelled on the server, and never takes effect; its connections are counted meanwhile', async () => {
    await database.pool.query('create table guarded (n int)')
    const locker = await database.pool.connect()
    await locker.query('begin; lock table guarded')
    const db = new NodePostgres(openPoolOf(10), 300, false)
    const failed = Array.from({ length: 50 }, (_, n) =>
      db.query(`insert into guarded values (${n})`).catch((error) => error),
    )
    await waitFor('the statements', async () => (await waiting()) === 3)
    const errors = await Promise.all(failed)
    expect(errors.filter(({ kind }) => kind === 'timeout').length).toBeGreaterThanOrEqual(3)
    expect(errors.filter(({ kind }) => kind !== 'timeout' && kind !== 'busy')).toEqual([])
    await Promise.all(errors.map(({ ended }) => ended))
    expect(await waiting()).toBe(0)
    await locker.query('commit')
    locker.release()
    expect(await db.query('select n from guarded')).toEqual([])
    await db.close()
  })

  it('that the server does not hear of counts until its backend is seen to have ended', async () => {
    await database.pool.query('create table unheard (n int)')
    const locker = await database.pool.connect()
    await locker.query('begin; lock table unheard')
    const proxy = await startProxy(database.url)
    const db = new NodePostgres(openPoolOf(10, proxy.url), 500, false, 3)
    const sent = db.query('insert into unheard values (1)')
    await waitFor('the statement', async () => (await waiting()) === 1)
    proxy.forget('silence')
    proxy.refuse()
    const error = await sent.catch((error) => error)
    let ended = false
    error.ended.then(() => {
      ended = true
    })
    proxy.restore()
    // The only place for statements is taken.
    await expect(db.query('select 1')).rejects.toMatchObject({ kind: 'busy' })
    expect(ended).toBe(false)
    await locker.query('commit')
    locker.release()
    await waitFor('the end', () => ended)
    expect(await db.query('select n from unheard')).toEqual([[1]])
    await db.close()
    await proxy.close()
  })

  it('is read first if the process was too busy to notice the reply', async () => {
    const db = new NodePostgres(openPoolOf(3), 200, false)
    await db.query('select 1')
    const sent = db.query('select 1')
    await new Promise((resolve) => setImmediate(resolve))
    const until = Date.now() + 500
    while (Date.now() < until);
    expect(await sent).toEqual([[1]])
    await db.close()
  })
})

describe('what is urgent', () => {
  it('goes through the pool, and past one that is exhausted', async () => {
    const pool = openPoolOf(1)
    const db = new NodePostgres(pool, 5000, false)
    const pid = async () => (await db.urgent('select pg_backend_pid()'))[0]?.[0]
    const pooled = await pid()
    expect(await pid()).toBe(pooled)
    const busy = await pool.connect()
    const own = await pid()
    expect(own).not.toBe(pooled)
    busy.release()
    expect(await pid()).toBe(pooled)
    await waitFor('the end of its connection', async () => {
      const { rows } = await pool.query('select from pg_stat_activity where pid = $1', [own])
      return rows.length === 0
    })
    expect(pool.totalCount).toBe(1)
  })

  it('fails as everything does while the database is away', async () => {
    const proxy = await startProxy(database.url)
    closing.push(() => proxy.close())
    const pool = openPoolOf(1, proxy.url)
    const db = new NodePostgres(pool, 500, false)
    proxy.refuse()
    await expect(db.urgent('select 1')).rejects.toThrow('ECONNREFUSED')
    proxy.restore()
    expect(await db.urgent('select 1')).toEqual([[1]])
  })
})

describe('a connection that is frozen', () => {
  it('is an error after the timeout, is dropped, and the next statement gets another', async () => {
    const proxy = await startProxy(database.url)
    const pool = openPoolOf(2, proxy.url)
    closing.unshift(() => proxy.close())
    const db = new NodePostgres(pool, 1000, false)
    const pid = async () => (await db.query('select pg_backend_pid()'))[0]?.[0]
    const before = await pid()
    proxy.freeze()
    await expect(pid()).rejects.toThrow('no reply to a statement within')
    proxy.restore()
    expect(await pid()).not.toBe(before)
  })

  it('does not hang what opens a connection', async () => {
    const proxy = await startProxy(database.url)
    closing.push(() => proxy.close())
    proxy.freeze()
    const pool = await openPool(proxy.url)
    const db = new NodePostgres(pool, 300, true)
    // Either would otherwise go on until the test's own time is up.
    await expect(db.query('select 1')).rejects.toThrow()
    await db.close()
  })
})

describe('connections and their owners', () => {
  it('the pool that an app gave stays open when Pawl stops', async () => {
    const pool = openPoolOf(5)
    const pawl = new Pawl({ database: pool, logger: silent })
    await pawl.start()
    await pawl.stop()
    expect((await pool.query('select 1 as n')).rows).toEqual([{ n: 1 }])
  })

  it('the pool that Pawl opened is closed when Pawl stops', async () => {
    const url = new URL(database.url)
    url.searchParams.set('application_name', 'closed with Pawl')
    const pawl = new Pawl({ database: url.href, logger: silent })
    const connections = async () => {
      const sql = 'select count(*)::int as n from pg_stat_activity where application_name = $1'
      return (await database.pool.query(sql, ['closed with Pawl'])).rows[0].n
    }
    await pawl.start()
    expect(await connections()).toBeGreaterThan(0)
    await pawl.stop()
    await waitFor('no connections', async () => (await connections()) === 0)
  })

  it('an idle connection that breaks does not end the process', async () => {
    const pool = openPoolOf(3)
    const db = new NodePostgres(pool, 5000, false)
    const pid = async () => (await db.query('select pg_backend_pid()'))[0]?.[0]
    const before = await pid()
    await pool.query('select 1')
    await database.pool.query('select pg_terminate_backend($1)', [before])
    await database.pool.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where query = $1 and pid <> pg_backend_pid()',
      ['select 1'],
    )
    await waitFor('the pool to notice', () => pool.totalCount === 0)
    expect(await pid()).not.toBe(before)
  })

  it('a statement whose connection breaks is sent again on another', async () => {
    const db = new NodePostgres(openPoolOf(3), 20_000, false)
    await db.query('create sequence sends')
    const sql = "select 'terminate me', pg_sleep(case when nextval('sends') = 1 then 30 else 0 end)"
    const sent = db.query(sql)
    await waitFor('the end of it', async () => {
      const sql = `select pg_terminate_backend(pid) from pg_stat_activity
        where query like '%''terminate me''%' and state = 'active' and pid <> pg_backend_pid()`
      return (await database.pool.query(sql)).rows[0]
    })
    expect(await sent).toHaveLength(1)
    expect(await db.query("select nextval('sends')")).toEqual([['3']])
  })

  it('a pool that serves many Pawls gets one listener', async () => {
    const pool = openPoolOf(3)
    for (let i = 0; i < 20; i++) new NodePostgres(pool, 5000, false)
    expect(pool.listenerCount('error')).toBe(1)
  })

  it('a connection whose statement was refused is kept', async () => {
    const pool = openPoolOf(1)
    const db = new NodePostgres(pool, 5000, false)
    const [before] = await db.query('select pg_backend_pid()')
    await expect(db.query('select 1/0')).rejects.toThrow('division by zero')
    expect(await db.query('select pg_backend_pid()')).toEqual([before])
  })

  it('a connection in a failed transaction is clean when it comes back', async () => {
    const pool = openPoolOf(1)
    const db = new NodePostgres(pool, 5000, false)
    const work = db.transaction(async (query) => {
      await query('create table never (n int)')
      await query('select 1/0')
    })
    await expect(work).rejects.toThrow('division by zero')
    expect(await db.query("select to_regclass('never')")).toEqual([[null]])
  })
})
