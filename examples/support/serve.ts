import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Express } from 'express'
import { Pawl } from 'pawl'
import { Pool } from 'pg'
import { z } from 'zod'
import { listenError } from './listen.ts'
import { endWithParent, reportFailure, tellParent } from './parent.ts'

/** What an example's app stands on. */
export interface AppParts {
  pawl: Pawl
  pool: Pool
}

type MakeApp = (parts: AppParts) => Promise<Express>

/** An example's process: what its app needs around it. */
export async function serve(makeApp: MakeApp): Promise<void> {
  await start(makeApp).catch(reportFailure)
}

async function start(makeApp: MakeApp): Promise<void> {
  const { DATABASE_URL, HOST, INSTANCE, PORT } = z
    .object({
      DATABASE_URL: z.string(),
      HOST: z.string().default('localhost'),
      INSTANCE: z.string().default('server'),
      PORT: z.coerce.number().default(0),
    })
    .parse(process.env)

  const pool = new Pool({ connectionString: DATABASE_URL })
  pool.on('error', () => {}) // An idle connection that breaks is replaced by the next query.
  const pawl = new Pawl({
    database: pool,
    // The same name after every restart: what the killed process left unfinished goes on at once, without
    // waiting for its heartbeat to expire.
    instance: INSTANCE,
    migrate: true,
  })
  // Its workflows are defined before Pawl starts to run them.
  const app = await makeApp({ pawl, pool })
  await pawl.start()
  const server = app.listen(PORT, HOST)
  await once(server, 'listening').catch((error) => {
    throw listenError(error, PORT)
  })
  const url = `http://localhost:${(server.address() as AddressInfo).port}`

  // A deployment, or Ctrl-C: workflows that are running are given back, and go on in the next process.
  async function stop() {
    server.close()
    server.closeAllConnections()
    await pawl.stop()
    await pool.end()
    process.exit()
  }
  process.once('SIGTERM', stop)
  if (process.connected) {
    tellParent({ url })
    endWithParent(stop)
  } else console.log(url)
}
