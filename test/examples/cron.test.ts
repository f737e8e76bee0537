import { beforeAll, describe, expect, it } from 'vitest'
import { spawnApp } from '../helpers/child.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withExample } from './example.ts'

const CRON = '* * * * * *'
const example = withExample('cron', { CRON })

interface Report {
  tick: Date
}

async function reports(): Promise<Report[]> {
  const sql = 'select tick from example_cron.reports order by tick'
  return (await example.pool.query(sql)).rows
}

/** Waits for so many more. A process that is killed while it runs a tick is missed a while later. */
async function more(count: number): Promise<Report[]> {
  const wanted = (await reports()).length + count
  return waitFor(
    `${wanted} reports`,
    async () => {
      const all = await reports()
      return all.length >= wanted ? all : null
    },
    50_000,
  )
}

let second: { kill: () => Promise<void> }

beforeAll(async () => {
  await example.start()
  second = await spawnApp('../../examples/cron/server.ts', {
    DATABASE_URL: example.databaseUrl,
    INSTANCE: 'second',
    CRON,
  })
})

describe('the cron example', () => {
  it('writes one report for each tick, over two processes, and goes on when one is killed', async () => {
    await more(3)
    await second.kill()
    const all = await more(3)
    const ticks = all.map(({ tick }) => tick.toISOString())
    expect(new Set(ticks).size).toBe(ticks.length)
    expect(ticks.every((tick) => tick.endsWith('.000Z'))).toBe(true)
  })

  it('says what comes next', async () => {
    const events = await fetch(`${example.url}/live`)
    const reader = events.body?.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (!text.includes('schedules')) text += (await reader?.read())?.value ?? ''
    await reader?.cancel()
    const { schedules } = JSON.parse(/data: (.*)/.exec(text)?.[1] as string)
    expect(schedules).toMatchObject([
      { name: 'report', cron: CRON, timezone: 'Europe/Berlin', missed: 'last' },
      { name: 'weekly report', cron: '0 9 * * mon' },
    ])
    // Monday, nine o'clock in Berlin.
    expect(schedules[1].next).toMatch(/T0[78]:00:00.000Z$/)
  })
})
