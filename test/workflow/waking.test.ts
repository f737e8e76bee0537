import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { CancelledError } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { faultyPool, isStatement } from '../helpers/faulty-pool.ts'
import { latch } from '../helpers/latch.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)
const query = (sql: string, values?: unknown[]) => database.pool.query(sql, values)

describe('A worker', () => {
  it('never runs more than its concurrency, also if executions are started while it polls', async () => {
    const starting = app.pawl({ workers: false })
    const taken = latch()
    const go = latch()
    const reply = () => {
      taken.open()
      return go.wait
    }
    const { pool } = faultyPool(database.url, (sql) =>
      isStatement.take(sql) ? { after: reply } : undefined,
    )
    const warnings: unknown[] = []
    const logger = { debug() {}, warn: (...args: unknown[]) => warnings.push(args) }
    const running = app.pawl({ database: pool, workers: { concurrency: 2 }, logger })
    let now = 0
    let most = 0
    const define = (pawl: typeof starting) =>
      pawl.workflow('crowd', async () => {
        most = Math.max(most, ++now)
        await new Promise((resolve) => setTimeout(resolve, 30))
        now--
      })
    const crowd = define(starting)
    await starting.start()
    const waiting = await crowd.startMany(Array.from({ length: 4 }, () => ({ input: null })))
    const local = define(running)
    await running.start()
    await taken.wait
    const more = await local.startMany(Array.from({ length: 4 }, () => ({ input: null })))
    go.open()
    await Promise.all([...waiting, ...more].map((handle) => handle.result()))
    expect(most).toBe(2)
    expect(warnings).toEqual([])
  })

  it('leases nothing while its process seems dead to the others, which would take it over at once', async () => {
    let looked = 0
    const { pool } = faultyPool(database.url, (sql) => {
      if (isStatement.take(sql)) looked++
      return undefined
    })
    const pawl = app.pawl({ database: pool, processTimeout: '10 minutes' })
    pawl.workflow('late', () => 'found')
    await pawl.start()
    await query(`update pawl.processes set expires_at = 'epoch'`)
    const starting = app.pawl({ workers: false })
    const late = starting.workflow('late', () => 'found')
    await starting.start()
    const before = looked
    const handle = await late.start(undefined)
    await waitFor('it to look', async () => {
      await query(`notify pawl, 'due'`)
      return looked > before + 1
    })
    expect(await app.status(handle.id)).toBe('waiting')
    await query(
      `update pawl.processes set expires_at = now() + interval '1 minute'; notify pawl, 'due'`,
    )
    expect(await handle.result({ timeout: '20s' })).toBe('found')
  })

  it('finds what it can run behind any number of executions that only others can run', async () => {
    const pawl = app.pawl({ workers: { concurrency: 1 } })
    const behind = pawl.workflow('behind', () => 'found')
    // They run in a live process, and it is time to look whether it still lives.
    await query(`
      insert into pawl.processes values (gen_random_uuid(), null, '', 0, '', now(), now(), 'infinity');
      with held as (
        insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, owner, attempt, input,
          created_at, expires_at)
        select gen_random_uuid(), '', n::text, 'workflow', 'behind', '', 'running', p.id, 1, '', now(), 'infinity'
        from generate_series(1, 60) n, pawl.processes p where p.expires_at = 'infinity'
        returning id
      )
      insert into pawl.wakeups (execution_id, handler, due_at, max_attempts)
      select id, 'workflow behind', now() - interval '1 hour', 10 from held`)
    const starting = app.pawl({ workers: false })
    const start = starting.workflow('behind', () => 'found')
    await starting.start()
    const handle = await start.start(undefined)
    await pawl.start()
    expect(await behind.handle(handle.key).result({ timeout: '20s' })).toBe('found')
    await query(`delete from pawl.wakeups; delete from pawl.executions; delete from pawl.processes
      where expires_at = 'infinity'`)
  })

  it('does not wait for transactions that are writing to a due execution', async () => {
    const pawl = app.pawl()
    const sleeper = pawl.workflow('locked', async (execution) => {
      await execution.signal('go')
      return 'woken'
    })
    await pawl.start()
    const { id, result } = await sleeper.start(undefined).then((handle) => ({
      id: handle.id,
      result: () => handle.result(),
    }))
    await app.until(id, 'waiting')
    // As a signal does it, statement by statement: the execution first, then its wakeup.
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await client.query(`set deadlock_timeout = '20ms'`)
    await query(`update pawl.wakeups set due_at = 'epoch' where execution_id = $1`, [id])
    await client.query('begin')
    await client.query('update pawl.executions set inbox = inbox + 1 where id = $1', [id])
    await client.query(
      `insert into pawl.signals (execution_id, name, sender, sent_at) values ($1, 'go', 'x', now())`,
      [id],
    )
    const other = app.pawl()
    other.workflow('locked', async (execution) => {
      await execution.signal('go')
      return 'woken'
    })
    await other.start()
    const looking = `select count(*)::int as n from pg_stat_activity
      where query like '%judged as%' and wait_event_type = 'Lock'`
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect((await query(looking)).rows[0].n).toBe(0)
    await client.query('update pawl.wakeups set due_at = now() where execution_id = $1', [id])
    await client.query('commit')
    await client.end()
    expect(await result()).toBe('woken')
  })

  it('leaves a parked execution alone, also when a signal arrives for it', async () => {
    const pawl = app.pawl()
    const parked = pawl.workflow('parked', { retry: 1 }, async () => {
      throw new Error('broken')
    })
    await pawl.start()
    const handle = await parked.start(undefined)
    await app.until(handle.id, 'parked')
    await handle.signal('anybody there')
    await waitFor('its wakeup to be put away again', async () => {
      const sql = 'select due_at from pawl.wakeups where execution_id = $1'
      return (await query(sql, [handle.id])).rows[0].due_at === Number.POSITIVE_INFINITY
    })
    expect(await handle.status()).toMatchObject({ status: 'parked', attempt: 1 })
  })
})

describe('A sleeping parent', () => {
  it('is due as soon as its child has ended, and workers are notified', async () => {
    const pawl = app.pawl()
    const child = pawl.workflow('napping', async (execution) => {
      await execution.sleep(1500)
      return 'rested'
    })
    const parent = pawl.workflow('parent', async () => (await child.start(undefined)).result())
    const listener = new pg.Client({ connectionString: database.url })
    const heard: (string | undefined)[] = []
    listener.on('notification', ({ payload }) => heard.push(payload))
    await listener.connect()
    await listener.query('listen pawl')
    await pawl.start()
    const handle = await parent.start(undefined)
    await app.until(handle.id, 'waiting')
    heard.length = 0
    await waitFor('the news', () => heard.includes('due'))
    expect(await handle.result()).toBe('rested')
    await listener.end()
  })

  it('gets an error if the execution it waits for does not exist', async () => {
    const pawl = app.pawl()
    const child = pawl.workflow('nobody', () => 1)
    const parent = pawl.workflow('waits for nobody', () =>
      child
        .handle('never started')
        .result()
        .catch((error) => error.code),
    )
    await pawl.start()
    expect(await (await parent.start(undefined)).result()).toBe('execution-missing')
  })

  it('that is cancelled while it starts a child cancels that one too', async () => {
    const held = latch()
    const go = latch()
    let holding = false
    const { pool } = faultyPool(database.url, (sql) => {
      if (!holding || !isStatement.start(sql)) return undefined
      held.open()
      return { before: go.wait }
    })
    const pawl = app.pawl({ database: pool })
    const child = pawl.workflow('late child', async (execution) => {
      await execution.signal('never')
    })
    const parent = pawl.workflow('late parent', async (execution) => {
      await execution.step('first', () => {
        holding = true
      })
      await (await child.start(undefined)).result()
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    await held.wait
    await handle.cancel()
    go.open()
    await expect(handle.result()).rejects.toBeInstanceOf(CancelledError)
    const { rows } = await query('select id from pawl.executions where parent = $1', [handle.id])
    expect(rows).toHaveLength(1)
    await app.until(rows[0].id, 'cancelled')
  })
})

describe('A signal', () => {
  it('arrives once, also if it is sent again after it was consumed', async () => {
    const pawl = app.pawl()
    const twice = pawl.workflow('twice', async (execution) => {
      const first = await execution.signal<number>('n')
      const second = await execution.signal<number>('n')
      return [first, second]
    })
    await pawl.start()
    const handle = await twice.start(undefined)
    await handle.signal('n', 1, { id: 'a' })
    await waitFor('the first to be taken', async () => (await app.journal(handle.id)).length === 1)
    await handle.signal('n', 1, { id: 'a' })
    await handle.signal('n', 2, { id: 'b' })
    expect(await handle.result()).toEqual([1, 2])
  })

  it('that one wait refuses can be received by another', async () => {
    const pawl = app.pawl()
    const picky = pawl.workflow('picky', async (execution) => {
      const number = await execution.signal('x', { schema: z.number(), timeout: 50 })
      return [number, await execution.signal('x')]
    })
    await pawl.start()
    const handle = await picky.start(undefined, { delay: 50 })
    await handle.signal('x', 'text')
    expect(await handle.result({ timeout: '20s' })).toEqual([undefined, 'text'])
  })

  it('is awaited through an outage of the database, and that is no failure', async () => {
    let lost = 0
    const { pool } = faultyPool(database.url, (sql) =>
      sql.includes('select sender, value') && lost++ < 3 ? 'lose the statement' : undefined,
    )
    const pawl = app.pawl({ database: pool })
    const patient = pawl.workflow('patient', { retry: 1 }, async (execution) => [
      await execution.signal('x'),
      execution.attempt,
    ])
    await pawl.start()
    const handle = await patient.start(undefined, { delay: 50 })
    await handle.signal('x', 'here')
    expect(await handle.result()).toEqual(['here', 1])
    expect(lost).toBeGreaterThan(3)
  })
})
