import pg from 'pg'
import { expect, it } from 'vitest'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { afterEachTest } from '../../helpers/cleanup.ts'
import { withDatabase } from '../../helpers/database.ts'
import { startProxy } from '../../helpers/proxy.ts'

const database = withDatabase()

const closing: (() => Promise<unknown>)[] = []
afterEachTest(async () => {
  for (const close of closing.splice(0)) await close()
})

/** The app's pool by way of a proxy, and Pawl beside it: each has its idle connections. */
async function start(timeoutMs: number) {
  const proxy = await startProxy(database.url)
  const pool = new pg.Pool({ connectionString: proxy.url, max: 5 })
  const db = new NodePostgres(pool, timeoutMs, false)
  closing.push(
    () => db.close(),
    () => pool.end(),
    () => proxy.close(),
  )
  const clients = await Promise.all(Array.from({ length: 5 }, () => pool.connect()))
  for (const client of clients) client.release()
  return { proxy, db, idle: await backends(db) }
}

/** The process ids of all connections that Pawl has for statements. */
async function backends(db: NodePostgres): Promise<Set<unknown>> {
  const held = Array.from({ length: db.connections - 2 }, () =>
    db.query('select pg_backend_pid(), pg_sleep(0.2)'),
  )
  return new Set((await Promise.all(held)).map(([row]) => row?.[0]))
}

/** What the store, and an app's transaction, do first on a connection. */
const uses: [string, (db: NodePostgres) => Promise<unknown>][] = [
  ['a statement', (db) => db.query('select 1 as n')],
  ['an urgent statement', (db) => db.urgent('select 1 as n')],
  ['a transaction of the store', (db) => db.transaction((query) => query('select 1 as n'))],
  [
    "a transaction of the app's",
    (db) =>
      db.host.transaction(
        async (_, run) => (await run('select 1 as n', [])).map(Object.values),
        undefined,
      ),
  ],
]

it.each(uses)('%s on a pool whose connections all died unnoticed does not fail', async (_, use) => {
  const { proxy, db, idle } = await start(20_000)
  expect(idle.size).toBe(3)
  proxy.forget('reset')
  expect(await use(db)).toEqual([[1]])
  expect(await use(db)).toEqual([[1]])
  // The others were idle for at least as long, and are not used either.
  expect([...(await backends(db))].filter((pid) => idle.has(pid))).toEqual([])
})

it.each(uses)('%s does not fail because a connection could not be opened once', async (_, use) => {
  let failures = 1
  class Flaky extends pg.Pool {
    override connect(): never {
      if (failures-- <= 0) return super.connect() as never
      const reset = { code: 'ECONNRESET', syscall: 'read' }
      return Promise.reject(Object.assign(new Error('read ECONNRESET'), reset)) as never
    }
  }
  const pool = new Flaky({ connectionString: database.url, max: 5 })
  closing.push(() => pool.end())
  expect(await use(new NodePostgres(pool, 20_000, false))).toEqual([[1]])
})

it('connections that do not answer any more cost one statement its timeout, and no other', async () => {
  const { proxy, db, idle } = await start(1000)
  proxy.forget('silence')
  await expect(db.query('select 1')).rejects.toThrow('no reply to a statement')
  // Two more of that kind are idle.
  for (let n = 0; n < 5; n++) expect(await db.query('select 1')).toEqual([[1]])
  expect([...(await backends(db))].filter((pid) => idle.has(pid))).toEqual([])
})

it('a connection that has answered since another broke is kept', async () => {
  const { db } = await start(20_000)
  const pid = async () => (await db.query('select pg_backend_pid()'))[0]?.[0]
  const healthy = db.query('select pg_backend_pid(), pg_sleep(0.3)').then(([row]) => row?.[0])
  const other = await pid()
  await database.pool.query('select pg_terminate_backend($1)', [other])
  const kept = await healthy
  expect(kept).not.toBe(other)
  expect(await pid()).toBe(kept)
})

it('a database that is away is an error at once, not after the timeout', async () => {
  const { proxy, db } = await start(20_000)
  proxy.refuse()
  proxy.cut()
  const started = performance.now()
  await expect(db.query('select 1')).rejects.toThrow('ECONNREFUSED')
  expect(performance.now() - started).toBeLessThan(10_000)
})

it('a statement that Postgres refuses is sent once', async () => {
  const { db } = await start(20_000)
  await db.query('create sequence sent')
  await expect(db.query("select 1 / (nextval('sent') - 1)")).rejects.toThrow('division by zero')
  expect(await db.query("select nextval('sent')")).toEqual([['2']])
})
