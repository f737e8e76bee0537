/**
 * Express' own test suite with the middleware mounted first in every app: once without keys, once
 * with a fresh key on every request and all methods enabled. Both must give what the suite gives
 * with a middleware that does nothing, mounted the same way.
 *
 * Usage: npx tsx test/external/express-suite/run.ts <a checkout of Express, with its dependencies>
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import pg from 'pg'
import { startPostgres } from '../../helpers/postgres.ts'

const checkout = resolve(process.argv[2] ?? '')
const mocha = join(checkout, 'node_modules/mocha/bin/mocha.js')
if (!process.argv[2] || !existsSync(mocha)) {
  console.error('Give the folder of an Express checkout in which npm install has run.')
  process.exit(2)
}
const root = resolve(import.meta.dirname, '../../..')
const built = spawnSync('npm', ['run', 'build', '--silent'], { cwd: root, stdio: 'inherit' })
if (built.status !== 0) process.exit(2)

interface Report {
  stats: { passes: number; failures: number }
  failures: { fullTitle: string }[]
}

const postgres = await startPostgres()

function run(name: string, env: Record<string, string>): Report {
  const preload = join(import.meta.dirname, 'preload.cjs')
  const args = ['--exit', '--timeout', '20000', '--check-leaks', '--reporter', 'json']
  const files = ['--require', 'test/support/env', '--require', preload, 'test/', 'test/acceptance/']
  const { stdout, stderr } = spawnSync(process.execPath, [mocha, ...args, ...files], {
    cwd: checkout,
    encoding: 'utf8',
    maxBuffer: 1024 ** 3,
    env: { ...process.env, DATABASE_URL: postgres.url, PAWL: join(root, 'dist'), ...env },
  })
  // Tests print before the report does.
  const start = stdout.indexOf('{\n  "stats"')
  if (start < 0) throw new Error(`mocha gave no report:\n${stderr}`)
  const report: Report = JSON.parse(stdout.slice(start))
  console.log(`${name}: ${report.stats.passes} passed, ${report.stats.failures} failed`)
  return report
}

async function executions(): Promise<number> {
  const client = new pg.Client({ connectionString: postgres.url })
  await client.connect()
  const { rows } = await client.query('select count(*)::int as n from pawl.executions')
  await client.end()
  return rows[0].n
}

try {
  const failures = (report: Report) => report.failures.map((failure) => failure.fullTitle)
  const expected = failures(run('a middleware that does nothing', { MOUNT: 'nothing' }))
  const seen = [
    ...failures(run('Pawl, no keys', { MOUNT: 'pawl' })),
    ...failures(run('Pawl, a fresh key on every request', { MOUNT: 'pawl', FRESH_KEYS: '1' })),
  ]
  const protectedRequests = await executions()
  console.log(`${protectedRequests} requests were protected`)
  if (protectedRequests === 0) throw new Error('The run with keys went past Pawl.')
  const different = seen.filter((title) => !expected.includes(title))
  for (const title of different) console.log(`fails with Pawl only: ${title}`)
  process.exitCode = different.length > 0 ? 1 : 0
} finally {
  await postgres.stop()
}
