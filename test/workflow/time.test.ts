import { beforeAll, describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

const MINUTE = 60_000
const HOUR = 60 * MINUTE

beforeAll(async () => {
  await database.pool.query(`
    create table clock (ahead interval not null);
    insert into clock values ('0');
    create or replace function pawl.now() returns timestamptz language sql volatile
      as 'select clock_timestamp() + ahead from public.clock'`)
})

/** The database's time, in ms since 1970. */
async function now(): Promise<number> {
  const { rows } = await database.pool.query('select extract(epoch from pawl.now()) * 1000 as ms')
  return Number(rows[0].ms)
}

describe('A day of timers, by the clock of the database', () => {
  it('each fires once, in order, and not too early', async () => {
    // Nobody dies of a jump of the clock.
    const pawl = app.pawl({ processTimeout: '20 days' })
    const fired: { name: string; at: number }[] = []
    const timers = pawl.workflow('timer', async (execution, how: Timer) => {
      if (how.kind === 'sleep') await execution.sleep(how.ms)
      else if (how.kind === 'until') await execution.sleepUntil(new Date(how.date))
      else await execution.signal('never', { timeout: how.ms })
      await execution.step('fire', async () => {
        fired.push({ name: execution.key, at: await now() })
      })
      return execution.attempt
    })
    await pawl.start()
    const begun = await now()
    const times = [5, 7, 61, 119, 240, 247, 600, 899, 1020, 1200].map((minutes) => minutes * MINUTE)
    const starts = times.flatMap((ms, i): { input: Timer; options: { key: string } }[] => [
      { input: { kind: 'sleep', ms }, options: { key: `${3 * i} sleep` } },
      {
        input: { kind: 'until', date: begun + ms + MINUTE },
        options: { key: `${3 * i + 1} until` },
      },
      { input: { kind: 'signal', ms: ms + 1.5 * MINUTE }, options: { key: `${3 * i + 2} signal` } },
    ])
    const dueAt = new Map(
      starts.map(({ input, options }) => [
        options.key,
        input.kind === 'until' ? input.date : begun + input.ms,
      ]),
    )
    const handles = await timers.startMany(starts)
    await Promise.all(handles.map(({ id }) => app.until(id, 'waiting')))
    // Half a minute before each of them and then behind it: nothing is too early, nothing late.
    const order = [...dueAt].sort(([, a], [, b]) => a - b)
    for (const [i, [, due]] of order.entries()) {
      await moveTo(due - 10_000)
      expect(fired.length).toBeLessThanOrEqual(i)
      await moveTo(due + 5_000)
      await database.pool.query(`notify pawl, 'due'`)
      await waitFor(`timer ${i}`, () => fired.length > i)
    }
    expect(await now()).toBeGreaterThan(begun + 20 * HOUR)
    const attempts = await Promise.all(handles.map((handle) => handle.result()))
    expect(new Set(attempts)).toEqual(new Set([2]))
    expect(fired.map(({ name }) => name)).toEqual(order.map(([name]) => name))
    for (const { name, at } of fired) expect(at).toBeGreaterThanOrEqual(dueAt.get(name) as number)
  })
})

type Timer =
  | { kind: 'sleep'; ms: number }
  | { kind: 'signal'; ms: number }
  | { kind: 'until'; date: number }

/** The clock only goes forward. */
async function moveTo(ms: number): Promise<void> {
  await database.pool.query(
    `update clock set ahead = greatest(ahead, to_timestamp($1::float8 / 1000) - clock_timestamp())`,
    [ms],
  )
}
