import pg from 'pg'
import { expect, it } from 'vitest'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { afterEachTest } from '../../helpers/cleanup.ts'
import { withDatabase } from '../../helpers/database.ts'

const database = withDatabase({ empty: true })
const opened: [NodePostgres, pg.Pool][] = []

afterEachTest(async () => {
  for (const [db, pool] of opened.splice(0)) {
    await db.close()
    await pool.end()
  }
})

/** A database whose statements may take 300 ms. */
function open(options: pg.PoolConfig = {}): NodePostgres {
  const pool = new pg.Pool({ connectionString: database.url, ...options })
  pool.on('error', () => {})
  const db = new NodePostgres(pool, 300, false)
  opened.push([db, pool])
  return db
}

const PID = 'select pg_backend_pid()'

it.each([{ max: 10 }, { max: 1 }])(
  'A session has no time limit, and its connection and settings end with it ($max connections)',
  async (options) => {
    const db = open(options)
    const [[pid], setting] = await db.session(async ({ query, isDirect }) => {
      expect(isDirect).toBe(true)
      await query(`set lock_timeout = '12s'`)
      await query('select pg_sleep(0.6)')
      return [(await query(PID))[0] as number[], await query('show lock_timeout')]
    })
    expect(setting).toEqual([['12s']])
    await expect(db.query('select pg_sleep(0.6)')).rejects.toThrow('no reply')
    for (let n = 0; n < 5; n++) {
      expect(await db.query('show lock_timeout')).toEqual([['0']])
      expect(await db.query(PID)).not.toEqual([[pid]])
    }
  },
)

it('A transaction of a session is committed, or rolled back as a whole', async () => {
  const db = open()
  await database.pool.query('create table kept (n int)')
  await db.session(async ({ transaction }) => {
    await transaction((query) => query('insert into kept values (1)'))
    const failing = transaction(async (query) => {
      await query('insert into kept values (2)')
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    await transaction((query) => query('insert into kept values (3)'))
  })
  expect(await db.query('select n from kept order by n')).toEqual([[1], [3]])
})

it('A signal cancels the statement in PostgreSQL, and rejects with its reason', async () => {
  const db = open()
  const interrupt = new AbortController()
  const running = db.session(({ query }) => query('select pg_sleep(600)'), interrupt.signal)
  setTimeout(() => interrupt.abort(new Error('enough')), 200)
  await expect(running).rejects.toThrow('enough')
  const sleeping = `select from pg_stat_activity where datname = current_database() and query like '%pg_sleep(600)%'
    and state = 'active' and pid <> pg_backend_pid()`
  await expect.poll(async () => (await database.pool.query(sleeping)).rowCount).toBe(0)
  const begun = () => expect.unreachable()
  await expect(db.session(begun, interrupt.signal)).rejects.toThrow('enough')
})

it('A session gets another connection where the first one is dead', async () => {
  const db = open()
  const [first] = await db.query(PID)
  await database.pool.query('select pg_terminate_backend($1)', first as number[])
  const [second] = await db.session(({ query }) => query(PID))
  expect(second).not.toEqual(first)
})
