/**
 * What the same operations cost in an empty database and beside many executions (bulk-loaded): start of a process that
 * has a predecessor, claim, take, retention, the start and end of an execution of a queue in which many wait, and the
 * commands that look for executions. Then ten rounds of new executions through a full table, with autovacuum: sizes
 * and rates. Usage: npm run bench:growth -- [--rows 10000000] [--waiting 200000] [--churn 0].
 */
import { parseArgs } from 'node:util'
import pg from 'pg'
import { Pawl } from '../lib/index.ts'
import { NodePostgres } from '../lib/store/database/node-postgres.ts'
import { Retention } from '../lib/store/retention.ts'
import type { WorkflowService } from '../lib/workflow/workflow-service.ts'
import { databaseUrl, startPostgres } from '../test/helpers/postgres.ts'
import { runRequest } from './run-request.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '10000000' },
    waiting: { type: 'string', default: '200000' },
    churn: { type: 'string', default: '0' },
  },
})
const [rows, waiting, churn] = [values.rows, values.waiting, values.churn].map(Number) as [
  number,
  number,
  number,
]

const postgres = await startPostgres([
  ...['-c', 'max_wal_size=8GB', '-c', 'shared_buffers=1GB', '-c', 'maintenance_work_mem=512MB'],
  ...['-c', 'autovacuum_naptime=5s'],
])
const admin = new pg.Client({ connectionString: postgres.url })
await admin.connect()
await admin.query('create database growth')
const url = databaseUrl(postgres.url, 'growth')
const pool = new pg.Pool({ connectionString: url, max: 5 })

const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

/** Medians in ms. */
type Costs = Record<string, number>

/** A process of the app, under an instance name whose row of an earlier process it replaces. */
async function openPawl() {
  const pawl = new Pawl({ database: pool, instance: 'bench', retentionInterval: '1 day' })
  const noop = pawl.workflow('noop', () => 1)
  const queue = pawl.queue('deep', { concurrency: 5, maxDepth: 10_000_000 })
  const queued = pawl.workflow('queued', { queue }, () => 1)
  const startMs = await timed(() => pawl.start())
  return { pawl, noop, queued, startMs }
}

async function measure(): Promise<Costs> {
  const starts: number[] = []
  for (let i = 0; i < 5; i++) {
    const { pawl, startMs } = await openPawl()
    starts.push(startMs)
    await pawl.stop()
    await pool.query(
      `insert into pawl.processes (id, instance, host, pid, version, started_at, heartbeat, expires_at)
       values (gen_random_uuid(), 'bench', 'h', 1, '0', now(), now(), now() + interval '15 s')`,
    )
  }
  const { pawl, noop, queued } = await openPawl()
  const { workflows } = pawl as unknown as { workflows: WorkflowService }
  const { wakeups } = workflows.dependencies
  const logger = { debug() {}, warn: console.error }
  const db = new NodePostgres(pool, 60_000, false)
  const retention = new Retention(db, 'pawl', 86_400_000, logger)
  const repeat = async (times: number, work: () => Promise<unknown>) => {
    const took: number[] = []
    for (let i = 0; i < times; i++) took.push(await timed(work))
    return median(took)
  }
  const run = () => runRequest(pawl, 3_600_000)
  await repeat(20, run)
  const costs: Costs = {
    'start of a process': median(starts),
    'a request (claim, complete)': await repeat(100, run),
    '64 requests at once': await repeat(20, () => Promise.all(Array.from({ length: 64 }, run))),
    'a workflow (start, run, end)': await repeat(50, async () =>
      (await noop.start(undefined)).result(),
    ),
    'a look for due work': await repeat(50, async () => {
      await wakeups.leaseDue(['workflow noop', 'workflow queued'], 50, [])
      await wakeups.nextDue(['workflow noop', 'workflow queued'])
    }),
    'start in a queue with maxDepth': await repeat(50, () => queued.start(undefined)),
  }
  costs['retention, nothing expired'] = await repeat(5, () => retention.sweep())
  const look = (sql: string) => () => pool.query(sql)
  costs['list what needs attention (SQL)'] = await repeat(
    3,
    look(
      `select id from pawl.execution_log where status in ('interrupted', 'unknown', 'released', 'parked')
       order by created_at desc limit 50`,
    ),
  )
  costs['show by key (SQL)'] = await repeat(
    3,
    look(`select id from pawl.execution_log where key = 'no such key'`),
  )
  await pawl.stop()
  return costs
}

const first = new Pawl({ database: pool, migrate: true })
await first.start()
await first.stop()
const before = await measure()

process.stderr.write(`loading ${rows} executions, of which ${waiting} wait in a queue\n`)
const loadMs = await timed(async () => {
  await pool.query(
    `insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, attempt, response_status,
       response_headers, response_body, created_at, completed_at, expires_at)
     select gen_random_uuid(), '', 'key ' || n, 'request', 'POST /orders', '\\x01', 'done', 1, 200, '\\x5b5d',
       convert_to('{"id":' || n || '}', 'UTF8'), now() - n * interval '1 ms', now() - n * interval '1 ms',
       now() + interval '1 day' + n * interval '1 ms'
     from generate_series(1, $1::int) as n`,
    [rows],
  )
  await pool.query(
    `with waits as (
       insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, attempt, input, queue, created_at, expires_at)
       select gen_random_uuid(), '', 'waits ' || n, 'workflow', 'queued', '\\x01', 'waiting', 0, '\\x', 'deep', now(), 'infinity'
       from generate_series(1, $1::int) as n returning id)
     insert into pawl.wakeups (execution_id, handler, due_at, max_attempts, admitted, place, queue)
     select id, 'other workflow', now(), 10, false, 'queue', 'deep' from waits`,
    [waiting],
  )
  await pool.query(
    `update pawl.queues set waiting = waiting + $1::int, backlog = backlog + $1::int where name = 'deep'`,
    [waiting],
  )
  await pool.query('vacuum analyze')
})
const after = await measure()

console.log(
  `${rows} executions, ${waiting} waiting in a queue (loaded in ${Math.round(loadMs / 1000)} s); medians in ms; ` +
    `Node ${process.version}, PostgreSQL 18`,
)
console.table(
  Object.keys(before).map((name) => ({
    what: name,
    empty: Number(before[name]!.toFixed(1)),
    full: Number(after[name]!.toFixed(1)),
    ratio: Number((after[name]! / before[name]!).toFixed(2)),
  })),
)

if (churn > 0) await steady()

/** New executions through a table of a million: each round inserts as many as expire. */
async function steady(): Promise<void> {
  await pool.query('truncate pawl.executions, pawl.wakeups, pawl.queues, pawl.lanes')
  const size = Math.min(rows, 1_000_000)
  const pawl = new Pawl({ database: pool, retentionInterval: '1s' })
  await pawl.start()
  let rateNow = 1000
  const client = async (until: () => boolean) => {
    // Kept for as long as it takes to fill the table once.
    while (!until()) await runRequest(pawl, (size / rateNow) * 1000)
  }
  const report: Record<string, number>[] = []
  let total = 0
  while (total < churn) {
    const began = performance.now()
    let n = 0
    await Promise.all(Array.from({ length: 128 }, () => client(() => n++ >= churn / 20)))
    total += n
    rateNow = n / ((performance.now() - began) / 1000)
    const { rows: sizes } = await pool.query(
      `select (select count(*)::int from pawl.executions) as rows,
         (pg_table_size('pawl.executions') / 1e6)::int as table_mb,
         (pg_indexes_size('pawl.executions') / 1e6)::int as indexes_mb`,
    )
    report.push({ total, 'a second': Math.round(rateNow), ...sizes[0] })
    process.stderr.write(`${JSON.stringify(report.at(-1))}\n`)
  }
  console.table(report)
  await pawl.stop()
}

await pool.end()
await admin.end()
await postgres.stop()
