/**
 * Runs `npm test` several times beside programs that keep every core and the disk busy:
 * `npx tsx test/beside-load.ts 5`. Ends with exit code 1 after the first run that fails.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'

const BURN = 'for (;;) {}'

/** Writes and syncs a file of 1 MiB all the time. */
const SYNC = `
  const { closeSync, fsyncSync, mkdtempSync, openSync, writeSync } = require('node:fs')
  const folder = mkdtempSync(require('node:path').join(require('node:os').tmpdir(), 'pawl-load-'))
  process.once('exit', () => require('node:fs').rmSync(folder, { recursive: true, force: true }))
  process.once('SIGTERM', () => process.exit())
  const file = openSync(folder + '/load', 'w')
  const bytes = Buffer.alloc(1024 ** 2, 1)
  const again = () => {
    writeSync(file, bytes, 0, bytes.length, 0)
    fsyncSync(file)
    setImmediate(again)
  }
  again()
`

const runs = Number(process.argv[2] ?? 1)
const programs = [...Array<string>(availableParallelism()).fill(BURN), SYNC]
const load: ChildProcess[] = programs.map((program) => spawn(process.execPath, ['-e', program]))
process.once('exit', () => {
  for (const child of load) child.kill()
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

for (let run = 1; run <= runs; run++) {
  const startedAt = Date.now()
  const { status } = spawnSync('npm', ['test', '--', ...process.argv.slice(3)], {
    stdio: 'inherit',
  })
  const seconds = Math.round((Date.now() - startedAt) / 1000)
  console.log(`run ${run} of ${runs}: ${status === 0 ? 'passed' : 'failed'} in ${seconds} s`)
  if (status !== 0) process.exit(1)
}
process.exit(0)
