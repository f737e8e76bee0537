import { afterAll, beforeAll, describe, expect, it } from 'vitest'
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

/**
 * Runs the suite for frameworks: one Pawl serves all of their cases but those that harm it.
 * @param options.every runs only each n-th case. Default 1: all
 */
export function conform(drivers: Driver[], { every = 1 } = {}): void {
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
      const possible = cases.filter(({ name }) => !(name in impossible))
      for (const what of possible.filter((_, n) => n % every === 0)) {
        it(`${what.row}: ${what.name}`, async () => {
          await runCase(what, driver, { database, pawl })
        })
      }

      it('leaves out only cases that there are', () => {
        const names = cases.map(({ name }) => name)
        expect(names).toEqual(expect.arrayContaining(Object.keys(impossible)))
      })
    })
  }
}
