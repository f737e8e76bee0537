/** Runs the load and the faults of the chaos test, and collects what is wrong afterwards. */
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { migrate } from '../../../lib/store/migrate.ts'
import { LEDGER_SCHEMA } from '../../apps/chaos-ledger.ts'
import { FAST, startPostgres } from '../../helpers/postgres.ts'
import {
  checkCounters,
  checkEffects,
  checkOrder,
  checkOutcomes,
  checkRemains,
  checkReplays,
  checkTransactions,
  type Evidence,
  type Facts,
  readFacts,
} from './checks.ts'
import { Cluster } from './cluster.ts'
import { Load } from './load.ts'
import { Monitor } from './monitor.ts'
import { Random } from './random.ts'

/**
 * How long after the last fault everything has ended, in ms. What a process was about to do when it died is done by the
 * check of the queues, which runs once a minute; the rest takes seconds.
 */
const END_MS = 100_000

export interface ChaosOptions {
  /** For how long faults happen, in ms. */
  chaosMs: number
  seed: number
  /** The pause between two faults, in ms: from, to. */
  pauseMs: [number, number]
  processTimeoutMs: number
  /** The database of the ledger, which is empty. */
  ledger: { url: string; pool: pg.Pool }
}

export interface ChaosResult {
  /** What is wrong, by check; empty lists if nothing is. */
  wrong: Record<string, string[]>
  /** In one line, for people. */
  figures: string
  counts: Cluster['counts']
  facts: Facts
  monitor: Monitor
}

export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const { ledger, seed, chaosMs, pauseMs, processTimeoutMs } = options
  const postgres = await startPostgres(FAST)
  const pool = new pg.Pool({ connectionString: postgres.url, max: 2 })
  pool.on('error', () => {})
  await migrate(new NodePostgres(pool, 10_000, false), 'pawl')
  await pool.query('create table facts (execution uuid); create table orders (id text)')
  await ledger.pool.query(LEDGER_SCHEMA)
  const random = new Random(seed)
  const urls = { databaseUrl: postgres.url, ledgerUrl: ledger.url }
  const cluster = new Cluster({ ...urls, processTimeoutMs }, postgres, random)
  const load = new Load(cluster, seed)
  const evidence: Evidence = { pool, ledger: ledger.pool, load, cluster }
  let monitor: Monitor | undefined
  try {
    await cluster.start()
    monitor = new Monitor(postgres.url)
    const loading = load.run()
    // It is awaited later, and may fail before.
    loading.catch(() => {})
    const end = performance.now() + chaosMs
    await sleep(500)
    for (let n = 0; performance.now() < end || n < 4; n++) {
      await cluster.strike(n)
      await sleep(random.between(...pauseMs))
    }
    load.end()
    await cluster.calm()
    const calmAt = performance.now()
    await loading
    const unfinished = await untilEnded(pool, calmAt + END_MS)
    const tookMs = performance.now() - calmAt
    await monitor.stop()
    const facts = await readFacts(evidence)
    const wrong = {
      unfinished,
      counts: [...monitor.wrong].map(([what, seen]) => `${what}: ${seen}`),
      outcomes: checkOutcomes(facts),
      effects: checkEffects(facts),
      transactions: await checkTransactions(evidence, facts),
      counters: await checkCounters(evidence, facts),
      order: await checkOrder(evidence, facts),
      replays: await checkReplays(evidence, facts),
      remains: await checkRemains(evidence),
    }
    const figures = describe(options, evidence, facts, monitor, tookMs)
    return { wrong, figures, counts: cluster.counts, facts, monitor }
  } finally {
    load.end()
    await cluster.end()
    await monitor?.stop().catch(() => {})
    await pool.end()
    await postgres.stop()
  }
}

/** @returns what has not ended in time */
async function untilEnded(pool: pg.Pool, deadline: number): Promise<string[]> {
  for (;;) {
    const { rows } = await pool.query(
      `select e.name, e.key, e.status, e.attempt, w.place, w.handler, w.due_at, w.awaits, w.lender, w.admitted
       from pawl.wakeups w left join pawl.executions e on e.id = w.execution_id
       union all
       select name, key, status, attempt, null, null, null, null, null, null from pawl.executions
       where status <> 'done' and id not in (select execution_id from pawl.wakeups)`,
    )
    if (rows.length === 0) return []
    if (performance.now() > deadline) return rows.map((row) => JSON.stringify(row))
    await sleep(100)
  }
}

function describe(
  { seed, chaosMs }: ChaosOptions,
  { load, cluster }: Evidence,
  { executions, effects, acknowledged }: Facts,
  monitor: Monitor,
  tookMs: number,
): string {
  const { kills, stops, deploys, crashes } = cluster.counts
  const distinct = new Set(effects.map(({ execution, step }) => `${execution} ${step}`)).size
  const broken = executions.filter(({ result }) => result === 'broken').length
  const cancelled = executions.filter(({ status }) => status === 'cancelled').length
  const [slowest] = executions.toSorted((a, b) => b.ms - a.ms)
  return [
    `chaos, seed ${seed}, ${Math.round(chaosMs / 1000)} s:`,
    `${kills} kills, ${stops} stops, ${deploys} deploys, ${crashes} crashes of PostgreSQL;`,
    `${acknowledged.length} answers to ${load.requests} requests, the longest after ${seconds(load.longest.ms)} (${load.longest.id});`,
    `${executions.length} executions, the longest ${seconds(slowest?.ms ?? 0)} (${slowest?.name} ${slowest?.key}), ${cancelled} cancelled, ${broken} circles broken;`,
    `${distinct} effects, ${effects.length - distinct} of them run again;`,
    `${monitor.snapshots} snapshots of the counts, ${monitor.borrowed} borrowed places seen, at most ${monitor.deepest} waiting;`,
    `all ended ${seconds(tookMs)} after the last fault`,
  ].join(' ')
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
