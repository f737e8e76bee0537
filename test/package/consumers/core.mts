import http from 'node:http'
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
express().get(
  '/operations/:id',
  pawl.statusHandler({
    authorize: (req: express.Request, { scope, kind }) => scope === req.ip && kind === 'request',
  }),
)
http.createServer(pawl.statusHandler({ authorize: (req, { key }) => req.url !== key }))
export const status: (request: Request) => Promise<Response> = pawl.statusResponse({
  authorize: async (request, { scope }) => request.headers.get('x-user') === scope,
  maxWait: '10s',
})
// @ts-expect-error there is no default for authorize
pawl.statusHandler({})
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
