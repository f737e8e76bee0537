import pg from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { Pawl } from '../../../lib/index.ts'
import { NodePostgres, openPool } from '../../../lib/store/database/node-postgres.ts'
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
  it('is an error after the timeout, and a client that comes too late goes back to the pool', async () => {
    const pool = openPoolOf(1)
    const db = new NodePostgres(pool, 200, false)
    const busy = await pool.connect()
    await expect(db.query('select 1')).rejects.toThrow('No connection to PostgreSQL within 200 ms')
    busy.release()
    await waitFor('the client', () => pool.idleCount === 1 && pool.waitingCount === 0)
    expect(await db.query('select 1')).toEqual([[1]])
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
    await expect(pid()).rejects.toThrow('Query read timeout')
    expect(pool.totalCount).toBe(0)
    proxy.restore()
    expect(await pid()).not.toBe(before)
  })

  it('does not hang what opens a connection', async () => {
    const proxy = await startProxy(database.url)
    closing.push(() => proxy.close())
    proxy.freeze()
    const pool = await openPool(proxy.url, 300)
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
    const [row] = await db.query('select pg_backend_pid()')
    await database.pool.query('select pg_terminate_backend($1)', [row?.[0]])
    await waitFor('the pool to notice', () => pool.totalCount === 0)
    expect(await db.query('select 1')).toEqual([[1]])
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
