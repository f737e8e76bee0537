import { afterAll, beforeAll, describe, it } from 'vitest'
import { Pawl } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { type Case, runCase } from './case.ts'
import { answers } from './cases/answers.ts'
import { asynchronous } from './cases/async.ts'
import { connections } from './cases/connections.ts'
import { endings } from './cases/endings.ts'
import { ietfDraft } from './cases/ietf-draft.ts'
import { requests } from './cases/requests.ts'
import { steps } from './cases/steps.ts'
import { store } from './cases/store.ts'
import type { Driver } from './driver.ts'
import { express4Driver, express5Driver } from './drivers/express.ts'
import { fastify4Driver, fastify5Driver } from './drivers/fastify.ts'
import { fetchDriver } from './drivers/fetch.ts'
import { honoDriver } from './drivers/hono.ts'
import { koaDriver } from './drivers/koa.ts'
import { nestExpressDriver, nestFastifyDriver } from './drivers/nest.ts'

const database = withDatabase()

let pawl: Pawl

beforeAll(async () => {
  pawl = new Pawl({ database: database.url, logger: silent, drainTimeout: 0 })
  await pawl.start()
})
afterAll(() => pawl.stop())

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

const cases: Case[] = [
  ...answers,
  ...requests,
  ...endings,
  ...ietfDraft,
  ...connections,
  ...steps,
  ...store,
  ...asynchronous,
]

for (const driver of drivers) {
  const impossible = driver.impossible ?? {}
  describe(`Conformance of ${driver.name}`, () => {
    for (const what of cases) {
      it.skipIf(impossible[what.name])(`${what.row}: ${what.name}`, async () => {
        await runCase(what, driver, { database, pawl })
      })
    }
  })
}
