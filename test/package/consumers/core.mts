import express from 'express'
import { type Execution, Pawl, PawlError } from 'pawl'
import { type IdempotencyOptions, idempotency } from 'pawl/express'
import { type CrashTestReport, crashTest, type TestableDatabase } from 'pawl/testing'

const pawl = new Pawl({ database: 'postgres://localhost/app', processTimeout: '10s' })
const options: IdempotencyOptions<express.Request> = {
  scope: (req) => req.ip ?? 'unknown',
  wait: 0,
}
express()
  .use(idempotency(pawl, options))
  .post('/', (req, res) => {
    const execution: Execution | undefined = req.execution
    res.json({ attempt: execution?.attempt })
  })
// @ts-expect-error there is no such option
idempotency(pawl, { scop: () => 'x' })
export const code: string = new PawlError('not-started', 'a', 'b').code
export const test = (database: TestableDatabase): Promise<CrashTestReport> =>
  crashTest(
    ({ database, schema }) => {
      const pawl = new Pawl({ database, schema })
      return { app: express(), stop: () => pawl.stop() }
    },
    { path: '/orders', body: { item: 'book' } },
    { database, check: ({ key, answer }) => [key, answer.status] },
  )
