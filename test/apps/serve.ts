import type { Express } from 'express'
import type pg from 'pg'
import type { Pawl } from '../../lib/index.ts'

/** Serves an app on a free port, and tells the parent process the address by a line on stdout. */
export function serve(app: Express) {
  const server = app.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as { port: number }
    console.log(`http://127.0.0.1:${port}`)
  })
  return server
}

/** The same, and ends as the README says on SIGTERM. */
export function serveUntilTerminated(app: Express, pawl: Pawl, pool: pg.Pool): void {
  const server = serve(app)
  process.once('SIGTERM', async () => {
    server.close()
    server.closeIdleConnections()
    await pawl.stop()
    await pool.end()
    process.exit(0)
  })
}
