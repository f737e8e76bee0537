import type { Server } from 'node:http'
import express5, { type Express } from 'express'
import express4 from 'express4'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { Pawl, type PawlOptions } from '../../lib/index.ts'
import { afterEachTest } from './cleanup.ts'
import { appPool } from './database.ts'
import { isProof } from './proof.ts'

/** Every Express that Pawl supports, for describe.each. */
export const allExpressVersions = [
  { version: 4, express: express4 as unknown as typeof express5 },
  { version: 5, express: express5 },
]

/**
 * The same in the proofs; the latest in `npm test`, where the conformance suite and the tests of the adapter stand for
 * the one before.
 */
export const expressVersions = isProof ? allExpressVersions : allExpressVersions.slice(-1)

/** An app that listens, with a Pawl of its own. */
export interface TestApp {
  url: string
  app: Express
  server: Server
  pawl: Pawl
  close(): Promise<void>
}

const open: TestApp[] = []

/** Silent, since many tests provoke warnings on purpose. */
export const silent = { debug() {}, warn() {} }

/**
 * Starts an app with the middleware mounted first; it is closed after the test.
 * @param database a test database's URL stands for the pool that the file's apps share
 * @param routes adds body parsers and handlers behind the middleware
 */
export async function startApp(
  database: string | PawlOptions['database'],
  options: IdempotencyOptions<express5.Request> | undefined,
  routes: (app: Express, express: typeof express5) => void,
  settings: { pawl?: Partial<PawlOptions>; express?: typeof express5; mount?: boolean } = {},
): Promise<TestApp> {
  const pawl = new Pawl({
    database: (typeof database === 'string' && appPool(database)) || database,
    logger: silent,
    ...settings.pawl,
  })
  await pawl.start()
  const express = settings.express ?? express5
  const app = express()
  app.set('env', 'test') // Express' final handler then logs no errors.
  if (settings.mount !== false) app.use(idempotency(pawl, options))
  routes(app, express)
  const server = await new Promise<Server>((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
  })
  const { port } = server.address() as { port: number }
  const started: TestApp = {
    url: `http://127.0.0.1:${port}`,
    app,
    server,
    pawl,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await pawl.stop()
    },
  }
  open.push(started)
  return started
}

afterEachTest(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()))
})
