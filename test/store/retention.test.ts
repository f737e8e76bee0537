import { afterEach, describe, expect, it } from 'vitest'
import { Retention } from '../../lib/store/retention.ts'
import { executionStatements } from '../../lib/store/sql/execution-statements.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, lookAt, openStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const sql = executionStatements('"pawl"')
const count = async () =>
  (await database.pool.query('select count(*)::int as n from pawl.executions')).rows[0].n

/** Executions that are done, expired for one second unless said otherwise. */
const fill = (n: number, expires = "pawl.now() - interval '1 second'") =>
  database.pool.query(
    `insert into pawl.executions
       (id, scope, key, kind, name, fingerprint, status, attempt, created_at, expires_at)
     select gen_random_uuid(), '', n::text, 'request', '', '', 'done', 1, pawl.now(), ${expires}
     from generate_series(1, $1::int4) as n`,
    [n],
  )

async function retention(): Promise<{ retention: Retention; batches: number[] }> {
  const { db } = await openStore(database.url)
  const batches: number[] = []
  const counted = Object.assign(Object.create(db), {
    query: async (...args: Parameters<typeof db.query>) => {
      const rows = await db.query(...args)
      if (args[0] === sql.deleteExpired) batches.push(rows.length)
      return rows
    },
  })
  return { retention: new Retention(counted, 'pawl', 60_000, silent), batches }
}

afterEach(async () => {
  await database.pool.query('truncate pawl.executions, pawl.processes')
})

describe('retention', () => {
  it('raced by two, deletes everything that has expired once, in bounded batches, and nothing else', async () => {
    await fill(5500)
    await fill(10, "pawl.now() + interval '1 hour'")
    const [one, two] = await Promise.all([retention(), retention()])
    const deleted = await Promise.all([one.retention.sweep(), two.retention.sweep()])
    expect(deleted[0] + deleted[1]).toBe(5500)
    expect(Math.max(...one.batches, ...two.batches)).toBe(1000)
    expect(await count()).toBe(10)
  })

  it('says in the debug log how far it is, batch by batch', async () => {
    await fill(1500)
    const { db } = await openStore(database.url)
    const said: unknown[] = []
    const logger = { ...silent, debug: (...args: unknown[]) => void said.push(args) }
    await new Retention(db, 'pawl', 60_000, logger).sweep()
    expect(said).toEqual([
      ['retention', { deleted: 1000, kept: 0, ms: expect.any(Number), more: true }],
      ['retention', { deleted: 1500, kept: 0, ms: expect.any(Number), more: false }],
    ])
  })

  it('halves the batch where a timeout ends the statement, down to one, and lets it grow again', async () => {
    await fill(600)
    const { db } = await openStore(database.url)
    const limits: number[] = []
    let most = 1
    // A timeout of the server itself, as with journals of which it can delete so many in time.
    const slow = Object.assign(Object.create(db), {
      query: async (...[text, values]: Parameters<typeof db.query>) => {
        if (text !== sql.deleteExpired) return db.query(text, values)
        const [limit] = values as [number]
        limits.push(limit)
        if (limit <= most) return db.query(text, values)
        return db.transaction(async (query) => {
          await query('set local statement_timeout = 1')
          await query('select pg_sleep(60)')
          return []
        })
      },
    })
    const sweeper = new Retention(slow, 'pawl', 60_000, silent)
    most = 30
    expect(await sweeper.sweep()).toBe(600)
    expect(limits.slice(0, 9)).toEqual([1000, 500, 250, 125, 63, 32, 16, 36, 18])
    most = 0
    await expect(sweeper.sweep()).rejects.toMatchObject({ code: '57014' })
    expect(limits.at(-1)).toBe(1)
    most = 1000
    limits.length = 0
    await fill(3000)
    expect(await sweeper.sweep()).toBe(3000)
    expect(limits.slice(0, 3)).toEqual([1, 21, 41])
    expect(Math.max(...limits)).toBeGreaterThan(300)
  })

  it('stops at once if the database refuses the statement', async () => {
    const { db } = await openStore(database.url)
    let sent = 0
    const refused = Object.assign(Object.create(db), {
      query: () => ++sent && db.query('nonsense'),
    })
    const sweeper = new Retention(refused, 'pawl', 60_000, silent)
    await expect(sweeper.sweep()).rejects.toMatchObject({ code: '42601' })
    expect(sent).toBe(1)
  })

  it('leaves alone what a live process is running, and deletes what a dead one was', async () => {
    const [live, dead] = await Promise.all([
      openStore(database.url),
      openStore(database.url, false),
    ])
    const running = await claimNew(live, claimOf(undefined, { retentionMs: 0 }))
    await claimNew(dead, claimOf(undefined, { retentionMs: 0 }))
    const { retention: sweeper } = await retention()
    expect(await sweeper.sweep()).toBe(1)
    expect((await lookAt(live, running.id)).status).toBe('running')
    // Its outcome counts from then on.
    expect(await live.store.complete(completionOf(running, 'x'))).toEqual({ kind: 'stored' })
    expect(await sweeper.sweep()).toBe(0)
  })

  it('does not wait for a row that somebody holds, and comes back for it', async () => {
    await fill(3)
    const { retention: sweeper } = await retention()
    const client = await database.pool.connect()
    try {
      await client.query('begin')
      await client.query('select * from pawl.executions limit 1 for update')
      expect(await sweeper.sweep()).toBe(2)
      await client.query('commit')
    } finally {
      client.release()
    }
    expect(await sweeper.sweep()).toBe(1)
  })

  it('holds up no claim: other keys pass at once, an expired one is new again', async () => {
    const one = await openStore(database.url)
    const expired = claimOf(undefined, { retentionMs: 0 })
    const attempt = await claimNew(one, expired)
    await one.store.complete({ ...completionOf(attempt, 'old'), retentionMs: 0 })
    const client = await database.pool.connect()
    try {
      await client.query('begin')
      const { rows } = await client.query(sql.deleteExpired, [1000])
      expect(rows).toHaveLength(1)
      const others = Array.from({ length: 20 }, () => claimOf())
      for (const claim of others) await claimNew(one, claim)
      // Waits for the end of the batch that deletes it, and not for long.
      const again = claimNew(one, expired)
      await waitFor('the claim to wait', async () => {
        const waiting =
          "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return (await database.pool.query(waiting)).rows[0]
      })
      await client.query('commit')
      expect(await again).toMatchObject({ attempt: 1 })
    } finally {
      client.release()
    }
  })

  it('a restart that came first wins over the deletion', async () => {
    const dead = await openStore(database.url, false)
    const one = await openStore(database.url)
    const claim = claimOf(undefined, { retentionMs: 0 })
    await claimNew(dead, claim)
    const seen = await lookAt(one, claim.id)
    await one.store.restartExpired({ ...claim, retentionMs: 60_000 }, seen)
    const { retention: sweeper } = await retention()
    expect(await sweeper.sweep()).toBe(0)
  })

  it('forgets processes that have been dead for a day', async () => {
    await database.pool.query(
      `insert into pawl.processes
       select gen_random_uuid(), null, 'h', n, '1', pawl.now(), pawl.now(),
         pawl.now() - n * interval '12 hours' from generate_series(-1, 4) as n`,
    )
    await (await retention()).retention.sweep()
    const { rows } = await database.pool.query(
      "select pid from pawl.processes where host = 'h' order by pid",
    )
    expect(rows.map((row) => row.pid)).toEqual([-1, 0, 1])
  })

  it('sweeps by itself until it is stopped', async () => {
    const { db } = await openStore(database.url)
    const sweeper = new Retention(db, 'pawl', 20, silent)
    sweeper.start()
    await fill(5)
    await waitFor('an empty table', async () => (await count()) === 0)
    await fill(5)
    await waitFor('an empty table again', async () => (await count()) === 0)
    await sweeper.stop()
    await fill(5)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await count()).toBe(5)
  })
})
