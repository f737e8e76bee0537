import { afterAll, beforeAll, describe, it } from 'vitest'
import { Pawl } from '../../../lib/index.ts'
import { silent } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { skipped } from '../../helpers/skipped.ts'
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

const cases: Case[] = [
  ...answers,
  ...requests,
  ...endings,
  ...ietfDraft,
  ...connections,
  ...asynchronous,
  ...steps,
  ...store,
]

/** Runs the suite for frameworks: one Pawl serves all of their cases but those that harm it. */
export function conform(...drivers: Driver[]): void {
  const database = withDatabase()
  let pawl: Pawl
  beforeAll(async () => {
    pawl = new Pawl({ database: database.apps, logger: silent, drainTimeout: 0 })
    await pawl.start()
  })
  afterAll(() => pawl.stop())

  for (const driver of drivers) {
    const impossible = driver.impossible ?? {}
    describe(`Conformance of ${driver.name}`, () => {
      for (const what of cases) {
        const skip = skipped(`${driver.name}: ${what.name}`, impossible[what.name])
        it.skipIf(skip)(`${what.row}: ${what.name}`, async () => {
          await runCase(what, driver, { database, pawl })
        })
      }
    })
  }
}
