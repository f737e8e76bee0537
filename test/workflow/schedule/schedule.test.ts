import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { ScheduleOptions } from '../../../lib/index.ts'
import { Schedule } from '../../../lib/workflow/schedule/schedule.ts'
import { withClock } from '../../helpers/clock.ts'
import { withDatabase } from '../../helpers/database.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import { withWorkflows } from '../../helpers/workflows.ts'

const database = withDatabase()
const clock = withClock(database)
const app = withWorkflows(database)

/** Nobody dies while the clock jumps. */
const LIFE = { processTimeout: '20 days' }

/** A process of an app with one schedule, whose workflow is called as the schedule is. */
function processWith(name: string, options: ScheduleOptions<string>) {
  const pawl = app.pawl(LIFE)
  const workflow = pawl.workflow(`do ${name}`, async (_, input: string) => input)
  pawl.schedule(name, options, workflow)
  return pawl
}

/** The ticks that have started the workflow of this schedule, in their order. */
async function ticks(name: string): Promise<string[]> {
  const { rows } = await database.pool.query(
    `select key from pawl.executions where name = $1 order by key`,
    [`do ${name}`],
  )
  return rows.map(({ key }) => key.slice(name.length + 1).replace('.000Z', 'Z'))
}

/** How many ticks of this schedule lie in the future or wait to be run. */
async function pending(name: string): Promise<string[]> {
  const { rows } = await database.pool.query(
    `select key from pawl.executions where name = $1 and status <> 'done' order by key`,
    [`schedule ${name}`],
  )
  return rows.map(({ key }) => key)
}

const has = (name: string, count: number) =>
  waitFor(`${count} ticks of ${name}`, async () => (await ticks(name)).length >= count)

async function next(pawl: ReturnType<typeof app.pawl>): Promise<string | undefined> {
  return (await pawl.schedules())[0]?.next?.toISOString()
}

describe('A schedule', () => {
  it.each([
    {
      day: 'the spring day that has no half past two',
      from: '2026-03-28T22:59:50Z',
      hours: 23,
      fixed: ['2026-03-29T01:00:00Z'],
    },
    {
      day: 'the autumn day that has it twice',
      from: '2026-10-24T21:59:50Z',
      hours: 25,
      fixed: ['2026-10-25T00:30:00Z'],
    },
  ])('starts each tick once over three processes, also on $day', async ({ from, hours, fixed }) => {
    const [hourly, daily, weekdays] = [`hourly ${hours}`, `daily ${hours}`, `weekdays ${hours}`]
    await clock.set(from)
    const pawls = [1, 2, 3].map(() => {
      const pawl = app.pawl(LIFE)
      const timezone = 'Europe/Berlin'
      for (const [name, cron] of [
        [hourly, '0 * * * *'],
        [daily, '30 2 * * *'],
        [weekdays, '0 12 * * mon-fri'],
      ] as const) {
        const workflow = pawl.workflow(`do ${name}`, async () => name)
        pawl.schedule(name, { cron, timezone }, workflow)
      }
      return pawl
    })
    await Promise.all(pawls.map((pawl) => pawl.start()))
    expect(await pending(hourly)).toHaveLength(1)
    const midnight = new Date(from).getTime() + 10_000
    for (let half = 0; half < hours * 2; half++) {
      await clock.set(new Date(midnight + half * 1_800_000 + 1000))
      await has(hourly, Math.floor(half / 2) + 1)
      await waitFor('the next tick', async () => (await pending(hourly)).length === 1)
      await waitFor('what is due', async () => {
        const { rows } = await database.pool.query(
          `select from pawl.wakeups where due_at <= pawl.now() and handler ~ (' ' || $1 || '(@|$)')`,
          [hours],
        )
        return rows.length === 0
      })
    }
    const expected = Array.from({ length: hours }, (_, i) =>
      new Date(midnight + i * 3_600_000).toISOString().replace('.000Z', 'Z'),
    )
    expect(await ticks(hourly)).toEqual(expected)
    expect(await ticks(daily)).toEqual(fixed)
    expect(await ticks(weekdays)).toEqual([]) // Both are Sundays.
    const { rows } = await database.pool.query(
      `select max(attempt) as attempts from pawl.executions where name like '% ' || $1`,
      [hours],
    )
    expect(rows[0].attempts).toBe(1)
  })

  it.each([
    { missed: undefined, expected: ['2027-01-04T09:00:00Z'] },
    { missed: 'last', expected: ['2027-01-04T09:00:00Z'] },
    {
      missed: 'all',
      expected: ['2027-01-02T09:00:00Z', '2027-01-03T09:00:00Z', '2027-01-04T09:00:00Z'],
    },
    { missed: 'skip', expected: [] },
  ] as const)(
    'that nobody ran for three days, with missed: $missed',
    async ({ missed, expected }) => {
      const name = `missed ${missed}`
      const options = { cron: '0 9 * * *', ...(missed && { missed }) }
      await clock.set('2027-01-01T12:00:00Z')
      const first = processWith(name, options)
      await first.start()
      expect(await next(first)).toBe('2027-01-02T09:00:00.000Z')
      await first.stop()
      await clock.set('2027-01-04T18:00:00Z')
      const second = processWith(name, options)
      await second.start()
      await waitFor('the missed ticks', async () => {
        const left = await pending(name)
        return left.length === 1 && left[0]?.endsWith('2027-01-05T09:00:00.000Z')
      })
      await has(name, expected.length)
      expect(await ticks(name)).toEqual(expected)
      expect(await next(second)).toBe('2027-01-05T09:00:00.000Z')
      await clock.set('2027-01-05T09:00:01Z')
      await has(name, expected.length + 1)
      expect(await ticks(name)).toEqual([...expected, '2027-01-05T09:00:00Z'])
    },
  )

  it('gives the workflow its input, a value or a function of the tick, the same in every attempt', async () => {
    await clock.set('2027-02-01T00:00:00Z')
    const pawl = app.pawl(LIFE)
    const got: unknown[] = []
    const asked: Date[] = []
    const report = pawl.workflow(
      'report',
      { input: z.object({ day: z.string() }) },
      async (_, input) => got.push(input),
    )
    pawl.schedule('by value', { cron: '@daily', input: { day: 'any' } }, report)
    pawl.schedule(
      'by function',
      {
        cron: '5 0 * * *',
        input: (tick) => {
          asked.push(tick)
          if (asked.length === 1) throw new Error('not yet')
          return { day: tick.toISOString().slice(0, 10) }
        },
      },
      report,
    )
    await pawl.start()
    expect(await pawl.schedules()).toEqual([
      {
        name: 'by value',
        workflow: 'report',
        cron: '@daily',
        timezone: 'UTC',
        missed: 'last',
        next: new Date('2027-02-02T00:00:00Z'),
      },
      expect.objectContaining({ name: 'by function', next: new Date('2027-02-01T00:05:00Z') }),
    ])
    await clock.set('2027-02-01T00:05:01Z')
    await waitFor('the first', () => got.length === 1)
    await clock.set('2027-02-02T00:00:01Z')
    await waitFor('the second', () => got.length === 2)
    expect(got).toEqual([{ day: '2027-02-01' }, { day: 'any' }])
    expect(asked).toHaveLength(2)
  })

  it('whose expression was changed follows only the new one', async () => {
    await clock.set('2027-03-01T00:00:00Z')
    const old = processWith('changed', { cron: '0 9 * * *' })
    await old.start()
    await old.stop()
    const changed = { cron: '0  10 * * * ', timezone: 'Europe/Paris' }
    const pawl = processWith('changed', changed)
    await pawl.start()
    expect((await pending('changed')).sort()).toEqual([
      '0 10 * * * Europe/Paris 2027-03-01T09:00:00.000Z',
      '0 9 * * * UTC 2027-03-01T09:00:00.000Z',
    ])
    await clock.set('2027-03-01T09:00:01Z')
    await has('changed', 1)
    await clock.set('2027-03-01T12:00:00Z')
    // Whoever has the new one clears away what nobody can run any more.
    await processWith('changed', changed).start()
    expect(await pending('changed')).toEqual(['0 10 * * * Europe/Paris 2027-03-02T09:00:00.000Z'])
    expect(await ticks('changed')).toEqual(['2027-03-01T09:00:00Z'])
  })

  it('runs each expression in the processes that have it during a deployment, and a common tick once', async () => {
    await clock.set('2027-04-01T00:00:00Z')
    const old = processWith('rolling', { cron: '0 9,10 * * *', input: 'old' })
    const changed = processWith('rolling', { cron: '0 10,11 * * *', input: 'new' })
    await old.start()
    await changed.start()
    for (const hour of ['09', '10', '11']) {
      await clock.set(`2027-04-01T${hour}:00:01Z`)
      await has('rolling', Number(hour) - 8)
      await waitFor('what is due', async () => {
        const keys = await pending('rolling')
        return keys.length === 2 && keys.every((key) => !key.endsWith(`T${hour}:00:00.000Z`))
      })
    }
    expect(await ticks('rolling')).toEqual([
      '2027-04-01T09:00:00Z',
      '2027-04-01T10:00:00Z',
      '2027-04-01T11:00:00Z',
    ])
  })

  it('continues after a tick was cancelled', async () => {
    await clock.set('2027-05-01T00:00:00Z')
    const pawl = processWith('cancelled', { cron: '0 9 * * *' })
    await pawl.start()
    const { rows } = await database.pool.query(
      `select id from pawl.executions where name = 'schedule cancelled'`,
    )
    await pawl.cancel(rows[0].id)
    await app.until(rows[0].id, 'cancelled')
    await clock.set('2027-05-01T09:00:01Z')
    const other = processWith('cancelled', { cron: '0 9 * * *' })
    await other.start()
    expect(await next(other)).toBe('2027-05-02T09:00:00.000Z')
    await clock.set('2027-05-02T09:00:01Z')
    await has('cancelled', 1)
    expect(await ticks('cancelled')).toEqual(['2027-05-02T09:00:00Z'])
  })

  it('can be defined after the start', async () => {
    await clock.set('2027-06-01T00:00:00Z')
    const pawl = app.pawl(LIFE)
    await pawl.start()
    expect(await pawl.schedules()).toEqual([])
    const workflow = pawl.workflow('do later', () => 1)
    pawl.schedule('later', { cron: '0 9 * * *' }, workflow)
    await waitFor('its tick', async () => (await next(pawl)) === '2027-06-01T09:00:00.000Z')
  })

  it('refuses invalid schedules when they are defined', () => {
    const pawl = app.pawl()
    const workflow = pawl.workflow('any', () => 1)
    const define = (options: unknown) => () =>
      pawl.schedule('bad', options as ScheduleOptions, workflow)
    for (const cron of [
      '61 * * * *',
      '0 9 * *',
      '0 0 30 2 *',
      '? 9 * * *',
      '2026-01-01T00:00:00',
      '@often',
      '',
      5,
      undefined,
    ]) {
      expect(define({ cron })).toThrow(
        expect.objectContaining({
          code: 'invalid-option',
          message: expect.stringMatching(/Option "cron" is .*allowed: a cron expression/),
        }),
      )
    }
    expect(define({ cron: '@daily', timezone: 'Europe/Berln' })).toThrow(
      /Option "timezone" is "Europe\/Berln"; allowed: an IANA time zone/,
    )
    expect(define({ cron: '@daily', missed: 'some' })).toThrow(/'skip', 'last' or 'all'/)
    expect(define({ cron: '@daily', every: 5 })).toThrow(/no option "every"/)
    expect(() => pawl.schedule('', { cron: '@daily' }, workflow)).toThrow(/name of the schedule/)
    expect(() => pawl.schedule('bad', { cron: '@daily' }, {} as never)).toThrow(/has no workflow/)
    pawl.schedule('once', { cron: '@daily' }, workflow)
    expect(() => pawl.schedule('once', { cron: '@hourly' }, workflow)).toThrow(/two schedules/)
  })
})

describe('The ticks of a schedule when the clock changes', () => {
  const workflow = app.pawl().workflow('plan', () => 1)
  const plan = (options: object, tick: string, now: string) => {
    const schedule = new Schedule('plan', options, workflow)
    const { runs, next } = schedule.plan(new Date(tick), new Date(now))
    return [runs, next.toISOString().replace('.000Z', 'Z')]
  }

  it('follow elapsed time if the expression has a star, and the wall clock otherwise', () => {
    const after = (cron: string, from: string, count: number) => {
      const schedule = new Schedule('dst', { cron, timezone: 'Europe/Berlin' }, workflow)
      const times: string[] = []
      let time = new Date(from)
      while (times.length < count) {
        time = schedule.nextAfter(time)
        times.push(time.toISOString().slice(5, 16))
      }
      return times
    }
    expect(after('15,45 1-3 * * *', '2026-03-28T23:00:00Z', 4)).toEqual([
      '03-29T00:15',
      '03-29T00:45',
      '03-29T01:00', // What falls into the gap comes right after it, once.
      '03-29T01:15',
    ])
    expect(after('*/30 * * * *', '2026-10-24T23:59:00Z', 5)).toEqual([
      '10-25T00:00',
      '10-25T00:30',
      '10-25T01:00',
      '10-25T01:30',
      '10-25T02:00',
    ])
    expect(after('30 2,3 * * *', '2026-10-24T22:00:00Z', 3)).toEqual([
      '10-25T00:30',
      '10-25T02:30',
      '10-26T01:30',
    ])
  })

  it('counts a tick as missed a minute late, or once its successor is due', () => {
    const at = (seconds: string) => `2027-01-01T09:00:${seconds}Z`
    const daily = { cron: '0 9 * * *' }
    for (const missed of ['skip', 'last', 'all']) {
      expect(plan({ ...daily, missed }, at('00'), at('59'))).toEqual([true, '2027-01-02T09:00:00Z'])
    }
    const later = '2027-01-01T09:01:01Z'
    expect(plan({ ...daily, missed: 'skip' }, at('00'), later)[0]).toBe(false)
    expect(plan({ ...daily, missed: 'last' }, at('00'), later)[0]).toBe(true)
    expect(plan({ ...daily, missed: 'all' }, at('00'), later)[0]).toBe(true)
    const often = { cron: '*/10 * * * * *' }
    expect(plan({ ...often, missed: 'skip' }, at('00'), at('10'))).toEqual([false, at('20')])
    expect(plan({ ...often, missed: 'last' }, at('00'), at('25'))).toEqual([false, at('20')])
    expect(plan({ ...often, missed: 'all' }, at('00'), at('25'))).toEqual([true, at('10')])
  })
})
