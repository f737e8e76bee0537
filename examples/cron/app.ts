/** A report at fixed times: once for each tick, however many processes know the schedule. */
import express, { type Express } from 'express'
import type { Pawl } from 'pawl'
import { z } from 'zod'
import { live, servePage } from '../support/pages.ts'
import type { AppParts } from '../support/serve.ts'
import { createTables, listReports, writeReport } from './reports.ts'

const { CRON, MISSED } = z
  .object({
    CRON: z.string().default('*/10 * * * * *'),
    MISSED: z.enum(['skip', 'last', 'all']).default('last'),
  })
  .parse(process.env)

export async function createApp({ pawl, pool }: AppParts): Promise<Express> {
  await createTables(pool)
  defineReports(pawl)
  const app = express()
  servePage(app, new URL('./page/', import.meta.url), 'Schedules')
  app.get(
    '/live',
    live(async () => ({ schedules: await pawl.schedules(), reports: await listReports(pool) })),
  )
  return app
}

export function defineReports(pawl: Pawl): void {
  const report = pawl.workflow(
    'write report',
    { input: z.object({ tick: z.iso.datetime() }) },
    async (execution, { tick }) => {
      const visits = await execution.step('count visits', () => Math.ceil(Math.random() * 1000))
      await execution.transaction('write', (tx) => writeReport(tx, tick, visits))
    },
  )
  const input = (tick: Date) => ({ tick: tick.toISOString() })
  // The hours are those of the wall clock there, also when summer time begins or ends.
  const timezone = 'Europe/Berlin'
  pawl.schedule('report', { cron: CRON, timezone, missed: MISSED, input }, report)
  pawl.schedule('weekly report', { cron: '0 9 * * mon', timezone, input }, report)
}
