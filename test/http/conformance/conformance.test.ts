import { describe, it } from 'vitest'
import { withDatabase } from '../../helpers/database.ts'
import { type Case, runCase } from './case.ts'
import { answers } from './cases/answers.ts'
import { endings } from './cases/endings.ts'
import { ietfDraft } from './cases/ietf-draft.ts'
import { requests } from './cases/requests.ts'
import { store } from './cases/store.ts'
import type { Driver } from './driver.ts'
import { express4Driver, express5Driver } from './drivers/express.ts'
import { fastify4Driver, fastify5Driver } from './drivers/fastify.ts'
import { fetchDriver } from './drivers/fetch.ts'
import { honoDriver } from './drivers/hono.ts'
import { koaDriver } from './drivers/koa.ts'
import { nestExpressDriver, nestFastifyDriver } from './drivers/nest.ts'

const database = withDatabase()

const drivers: Driver[] = [
  express4Driver,
  express5Driver,
  fastify4Driver,
  fastify5Driver,
  fetchDriver,
  honoDriver,
  koaDriver,
  nestExpressDriver,
  nestFastifyDriver,
]

const cases: Case[] = [...answers, ...requests, ...endings, ...ietfDraft, ...store]

describe.each(drivers)('Conformance of $name', (driver) => {
  const impossible = driver.impossible ?? {}
  it.each(cases.filter(({ name }) => !impossible[name]))('$row: $name', async (what) => {
    await runCase(what, driver, database)
  })
})
