/**
 * First requests and replays beside bare Express, in alternating runs, as ratios: this machine's
 * speed is not yours. Usage: npm run bench -- [--seconds 3] [--rounds 5] [--connections 64]
 * [--variants bare,pawl]. Needs wrk.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { startPostgres } from '../test/helpers/postgres.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '64' },
    variants: { type: 'string', default: 'bare,pawl,pawl-before-parser' },
  },
})
const rounds = Number(values.rounds)
const variants = values.variants.split(',')
const kinds = { first: 0, replay: 500 }
type Kind = keyof typeof kinds
interface Run {
  rate: number
  p50: number
  p99: number
  errors: number
  statements: number
  commits: number
}

const postgres = await startPostgres([
  '-c',
  'shared_preload_libraries=pg_stat_statements', // biome-ignore format: one flag a line
  '-c',
  'max_wal_size=8GB',
  '-c',
  'checkpoint_timeout=30min',
])
const admin = new pg.Client({ connectionString: postgres.url })
await admin.connect()
await admin.query('create extension pg_stat_statements')

/** Statements sent, and write transactions committed, so far. */
async function counters() {
  const { rows } = await admin.query(
    `select (select coalesce(sum(calls), 0) from pg_stat_statements)::float8 as statements,
      pg_snapshot_xmax(pg_current_snapshot())::text::float8 as commits`,
  )
  return rows[0] as { statements: number; commits: number }
}

async function measure(url: string, salt: string, kind: Kind, seconds: string): Promise<Run> {
  const before = await counters()
  const script = new URL('orders.lua', import.meta.url).pathname
  const output = execFileSync(
    'wrk',
    [
      '-t1',
      `-c${values.connections}`,
      `-d${seconds}s`,
      '-s',
      script,
      url,
      '--',
      salt,
      String(kinds[kind]),
    ],
    { encoding: 'utf8' },
  )
  const [n, micros, p50, p99, errors] = /RESULT (.*)/.exec(output)![1]!.split(' ').map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ]
  const after = await counters()
  return {
    rate: n / (micros / 1e6),
    p50,
    p99,
    errors,
    statements: (after.statements - before.statements) / n,
    commits: (after.commits - before.commits) / n,
  }
}

const results = new Map<string, Record<Kind, Run[]>>(
  variants.map((variant) => [variant, { first: [], replay: [] }]),
)
const file = new URL('server.ts', import.meta.url).pathname
for (let round = 0; round < rounds; round++) {
  for (const variant of variants) {
    process.stderr.write(`round ${round + 1}/${rounds} ${variant}        \r`)
    const child = spawn(process.execPath, ['--import', 'tsx', file, variant], {
      env: { ...process.env, NODE_ENV: 'production', DATABASE_URL: postgres.url },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [url] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
    const salt = `${variant}-${round}`
    await measure(url, `${salt}-warm`, 'first', '1')
    results.get(variant)!.first.push(await measure(url, `${salt}-first`, 'first', values.seconds))
    if (variant !== 'bare') {
      await measure(url, `${salt}-replay`, 'replay', '1')
      results
        .get(variant)!
        .replay.push(await measure(url, `${salt}-replay`, 'replay', values.seconds))
    }
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
}
await admin.end()
await postgres.stop()

const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1]!
const bare = results.get('bare')?.first
console.log(
  `${values.connections} connections, ${rounds} rounds of ${values.seconds} s, medians; Node ${process.version}, PostgreSQL 18`,
)
console.table(
  [...results].flatMap(([variant, runs]) =>
    (Object.keys(kinds) as Kind[])
      .filter((kind) => runs[kind].length > 0)
      .map((kind) => {
        const of = (name: keyof Run) => median(runs[kind].map((run) => run[name]))
        const ratios = bare && runs[kind].map((run, i) => run.rate / bare[i]!.rate)
        return {
          variant,
          requests: kind,
          'per second': Math.round(of('rate')),
          'of bare': ratios ? Number(median(ratios).toFixed(2)) : '',
          'p50 ms': of('p50'),
          'p99 ms': of('p99'),
          'statements/request': Number(of('statements').toFixed(3)),
          'commits/request': Number(of('commits').toFixed(3)),
          errors: runs[kind].reduce((sum, run) => sum + run.errors, 0),
        }
      }),
  ),
)
