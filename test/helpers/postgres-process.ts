/**
 * An embedded PostgreSQL that lives as long as this process's standard input is open. It is a process of its
 * own so that it is stopped however the test run ends. Arguments: further flags for postgres. Prints its URL
 * and directory as JSON; `crash <ms>` on standard input ends it in immediate mode and starts it again.
 */
import { statfs } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { EmbeddedPostgres } from '../../examples/support/postgres/embedded-postgres.ts'
import { printable } from '../../examples/support/start-error.ts'

const server = new EmbeddedPostgres({
  password: 'postgres',
  // A password is checked at each connection, and tests open thousands.
  initdbFlags: ['--set=scram_iterations=1'],
  flags: ['-c', 'max_connections=300', ...process.argv.slice(2)],
})

/** Linux's file system in memory, where files cost a tenth of the time of those of a disk that nothing waits for. */
const MEMORY = '/dev/shm'
/** A run has up to ten databases at a time, and some gigabytes of WAL and tables in the proofs. */
const NEEDED_BYTES = 4 * 2 ** 30

async function hasMemory(): Promise<boolean> {
  const free = await statfs(MEMORY).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => 0,
  )
  return free >= NEEDED_BYTES
}

async function end(code: number) {
  await server.stop()
  process.exit(code)
}

const commands = createInterface({ input: process.stdin })
commands.on('line', async (line) => {
  const [command, downMs] = line.split(' ')
  if (command !== 'crash') throw new Error(`unknown command: ${line}`)
  await server.crash(Number(downMs))
  console.log('crashed')
})
commands.once('close', () => end(0))
// Ctrl-C reaches this process as well; its parent decides when it is over.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {})

try {
  // Whoever names a folder wants it there.
  if (process.env.TMPDIR === undefined && (await hasMemory())) process.env.TMPDIR = MEMORY
  await server.start()
  console.log(JSON.stringify({ url: server.url, directory: server.directory }))
} catch (error) {
  console.error(printable(error))
  await end(1)
}
