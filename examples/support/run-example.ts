import { endChild, startChild, whenReady } from './child.ts'
import { portFromEnv } from './listen.ts'
import { Program } from './program.ts'
import { databaseUrl } from './start-database.ts'
import { Supervisor } from './supervisor.ts'

/** An example: its server, and what that needs. */
export interface Example {
  /** A program that calls `serve()`. */
  server: URL
  /** Other servers: the server finds their URLs in its environment under these names. */
  others?: Record<string, URL>
  /** What to try, once it runs at this URL. */
  hints: (url: string) => string
}

/** How long a killed server stays dead. */
const DEAD_MS = 1000

/**
 * Brings up PostgreSQL (embedded, or that of `DATABASE_URL`) and the server, each in a process of its own,
 * and ends them on Ctrl-C. A server that is killed is started again.
 */
export async function runExample({ server, others = {}, hints }: Example): Promise<void> {
  const program = new Program('Ending: what runs is given back, then PostgreSQL stops.')
  await program.run(async () => {
    const port = portFromEnv(3000)
    const database = await databaseUrl(program)
    const env: Record<string, string> = { PORT: String(port), DATABASE_URL: database }
    for (const [name, file] of Object.entries(others)) {
      const other = startChild(file, { ...env, PORT: '0', INSTANCE: name })
      program.atEnd(() => endChild(other))
      env[name] = (await whenReady<{ url: string }>(other)).url
    }
    let deaths = 0
    const supervisor = new Supervisor({
      file: server,
      env,
      pauseMs: DEAD_MS,
      changed: ({ state, pid }) => {
        if (state === 'killed') deaths++
        if (state === 'up' && deaths > 0) console.log(`  The server is back (process ${pid}).`)
        if (state === 'killed') console.log(`\n  The server (process ${pid}) was killed.`)
      },
      gaveUp: (error) => program.fail(`The server does not start any more: ${error.message}`),
    })
    program.atEnd(() => supervisor.stop())
    const { url } = await supervisor.start<{ url: string }>()
    console.log(`\n${hints(url)}\n\n  Ctrl-C ends everything.\n`)
  })
}
