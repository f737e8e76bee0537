/**
 * An embedded PostgreSQL in a process of its own, which ends with its parent: whatever happens to `main.ts`,
 * this process is there to stop PostgreSQL and to remove its folder.
 */
import { endWithParent, reportFailure, tellParent } from './parent.ts'
import { EmbeddedPostgres } from './postgres/embedded-postgres.ts'

const postgres = new EmbeddedPostgres({ password: 'example' })

let ending = false

async function end() {
  ending = true
  await postgres.stop()
  process.exit()
}
process.once('SIGTERM', end)
endWithParent(end)

try {
  await postgres.start()
  tellParent({ url: postgres.url })
} catch (error) {
  await postgres.stop()
  if (!ending) await reportFailure(error)
}
