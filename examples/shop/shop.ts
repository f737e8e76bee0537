/** The shop's process: what `app.ts` needs around it. */
import { Pawl } from 'pawl'
import { Pool } from 'pg'
import { z } from 'zod'
import { endWithParent, tellParent } from '../support/parent.ts'
import { createShop } from './app.ts'

const { DATABASE_URL, PROVIDER_URL, SHOP_PORT } = z
  .object({ DATABASE_URL: z.string(), PROVIDER_URL: z.url(), SHOP_PORT: z.coerce.number() })
  .parse(process.env)

const pool = new Pool({ connectionString: DATABASE_URL })
const pawl = new Pawl({
  database: pool,
  // The same name after every restart: whatever the killed process left unfinished is free to be
  // resumed at once, without waiting for its heartbeat to expire.
  instance: 'shop',
  migrate: true,
  processTimeout: '15s',
})
await pawl.start()

const app = createShop({ pawl, pool, providerUrl: PROVIDER_URL })
const server = app.listen(SHOP_PORT, '127.0.0.1', (error) => {
  if (error) throw error
  tellParent({ ready: true })
})

// A deployment, or Ctrl-C: finish what is running, give the rest back to be resumed by the next
// process, and only then let go of the database.
async function stop() {
  server.close()
  await pawl.stop()
  server.closeAllConnections()
  await pool.end()
  process.exit()
}
process.once('SIGTERM', stop)
endWithParent(stop)
