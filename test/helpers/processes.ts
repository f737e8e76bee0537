import type { Server } from 'node:http'
import express, { type Express, type Request, type Response } from 'express'
import { afterAll, beforeAll } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../../lib/adapters/express.ts'
import { type Execution, Pawl, type PawlOptions } from '../../lib/index.ts'
import { silent } from './app.ts'
import type { TestDatabase } from './database.ts'
import { freshKey, type RawResponse, type RequestOptions, request } from './request.ts'

/** A handler of an app whose requests are protected. */
export type Handler = (execution: Execution, res: Response, req: Request) => unknown

/** One process of an app. */
interface Process {
  app: Express
  server: Server
  pawl: Pawl
  url: string
}

/** Two processes of one app, which serve what a test gives them, for all tests of a file. */
export function withProcesses(database: TestDatabase, pawlOptions: Partial<PawlOptions> = {}) {
  const processes: Process[] = []
  let routes = 0

  beforeAll(async () => {
    for (const instance of ['first', 'second']) {
      const pawl = new Pawl({
        database: database.apps,
        logger: silent,
        instance,
        // Nobody dies by being slow.
        processTimeout: '10 minutes',
        drainTimeout: 0,
        ...pawlOptions,
      })
      await pawl.start()
      const app = express()
      app.set('env', 'test') // Express' final handler then logs no errors.
      const server = await new Promise<Server>((resolve) => {
        const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
      })
      const { port } = server.address() as { port: number }
      processes.push({ app, server, pawl, url: `http://127.0.0.1:${port}` })
    }
  })
  afterAll(async () => {
    for (const { server, pawl } of processes) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await pawl.stop()
    }
  })

  /** Mounts a handler in both processes. */
  return function serve(handler: Handler, options: IdempotencyOptions<Request> = {}) {
    const path = `/route-${routes++}`
    const key = freshKey()
    for (const { app, pawl } of processes) {
      app.post(path, idempotency(pawl, { wait: 0, ...options }), (req, res) =>
        handler(req.execution as Execution, res, req),
      )
    }
    const post = (process: number, more?: RequestOptions): Promise<RawResponse> =>
      request(`${(processes[process] as Process).url}${path}`, { key, ...more })
    return {
      key,
      /** Sends the request to the first process. */
      post: (more?: RequestOptions) => post(0, more),
      /** Sends it to the second. */
      elsewhere: (more?: RequestOptions) => post(1, more),
      /** The first process dies, as far as the database can tell, for this execution. */
      async crash() {
        await database.pool.query(
          `update pawl.executions set owner = gen_random_uuid() where key = $1 and status = 'running'`,
          [key],
        )
      },
      async steps() {
        const sql = 'select * from pawl.step_log where key = $1 order by position, name, occurrence'
        return (await database.pool.query(sql, [key])).rows
      },
      async status(): Promise<string> {
        const sql = 'select status from pawl.execution_log where key = $1'
        return (await database.pool.query(sql, [key])).rows[0]?.status
      },
    }
  }
}
