import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { ScheduleStore } from '../../lib/store/schedule-store.ts'
import { withDatabase } from '../helpers/database.ts'

const database = withDatabase()
const store = () => new ScheduleStore(new NodePostgres(database.pool, 10_000, false), 'pawl')

/** Ticks of one handler, due at these intervals from now. */
async function insert(handler: string, dues: string[], status = 'waiting', attempt = 0) {
  for (const due of dues) {
    const id = randomUUID()
    await database.pool.query(
      `insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, attempt, input,
         created_at, expires_at)
       values ($1, '', $2, 'workflow', 'schedule x', '', $3, $4, '', pawl.now(), 'infinity')`,
      [id, `${handler} ${due}`, status, attempt],
    )
    await database.pool.query(
      `insert into pawl.wakeups (execution_id, handler, due_at, max_attempts)
       values ($1, $2, pawl.now() + $3::interval, 10)`,
      [id, handler, due],
    )
  }
}

async function left(): Promise<string[]> {
  const { rows } = await database.pool.query(
    `select key from pawl.executions join pawl.wakeups on id = execution_id order by key collate "C"`,
  )
  return rows.map(({ key }) => key)
}

describe('The store of schedules', () => {
  it('tells the database’s time', async () => {
    const { rows } = await database.pool.query('select clock_timestamp() as now')
    const now = await store().now()
    expect(Math.abs(now.getTime() - rows[0].now.getTime())).toBeLessThan(60_000)
  })

  it('finds the next tick of each handler, and deletes obsolete ones, once, when many do', async () => {
    await insert('x@old', ['-1 hour', '-30 seconds', '1 hour'])
    await insert('x@older', ['-1 day'])
    await insert('x@begun', ['-1 hour'], 'released', 1)
    await insert('x@now', ['-2 hours', '-1 hour', '2 hours'])
    await insert('xy@old', ['-1 hour'])
    await insert('a', ['-1 hour'])
    expect(await store().nextTickKeys(['x@old', 'none', 'x@now'])).toEqual([
      'x@old -1 hour',
      null,
      'x@now -2 hours',
    ])
    const counts = await Promise.all(
      Array.from({ length: 5 }, () => store().deleteObsoleteTicks('x@', 'x@now', 60_000)),
    )
    expect(counts.reduce((a, b) => a + b)).toBe(2)
    expect(await left()).toEqual([
      'a -1 hour',
      'x@begun -1 hour',
      'x@now -1 hour',
      'x@now -2 hours',
      'x@now 2 hours',
      'x@old -30 seconds',
      'x@old 1 hour',
      'xy@old -1 hour',
    ])
  })

  it('leaves alone a tick that a worker is leasing', async () => {
    await insert('busy@old', ['-1 hour'])
    const client = await database.pool.connect()
    try {
      await client.query('begin')
      await client.query(`select from pawl.wakeups where handler = 'busy@old' for update`)
      expect(await store().deleteObsoleteTicks('busy@', 'busy@new', 1000)).toBe(0)
      await client.query('rollback')
    } finally {
      client.release()
    }
    expect(await store().deleteObsoleteTicks('busy@', 'busy@new', 1000)).toBe(1)
  })
})
