/**
 * Recorded steps a second, of requests and of workflows, beside one insert for each (what a journal by hand costs) and, where it is
 * installed, DBOS Transact: in alternating runs, as ratios. Usage: npm run bench:steps --
 * [--seconds 3] [--rounds 5] [--concurrency 64] [--steps 10]. DBOS: npm install --no-save
 * @dbos-inc/dbos-sdk.
 */
import { randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { Pawl } from '../lib/index.ts'
import { databaseUrl, startPostgres } from '../test/helpers/postgres.ts'
import { runRequest } from './run-request.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    concurrency: { type: 'string', default: '64' },
    steps: { type: 'string', default: '10' },
  },
})
const [seconds, rounds, concurrency, steps] = [
  values.seconds,
  values.rounds,
  values.concurrency,
  values.steps,
].map(Number) as [number, number, number, number]

/** Runs one piece of work of `steps` steps. */
type Work = () => Promise<void>
interface Contender {
  name: string
  start(url: string): Promise<{ work: Work; stop(): Promise<void> }>
}

const value = (i: number) => ({ ok: true, value: 12345 + i })

const pawlSteps: Contender = {
  name: 'Pawl',
  async start(url) {
    const pawl = new Pawl({ database: url, migrate: true })
    await pawl.start()
    const work = () =>
      runRequest(pawl, 3_600_000, async ({ execution }) => {
        for (let i = 0; i < steps; i++) await execution.step('step', async () => value(i))
      })
    return { work, stop: () => pawl.stop() }
  },
}

const pawlWorkflows: Contender = {
  name: 'Pawl workflows',
  async start(url) {
    const pawl = new Pawl({ database: url, migrate: true })
    const workflow = pawl.workflow('work', async (execution) => {
      for (let i = 0; i < steps; i++) await execution.step('step', async () => value(i))
    })
    await pawl.start()
    const work = async () => {
      const handle = await workflow.start(undefined)
      await handle.result()
    }
    return { work, stop: () => pawl.stop() }
  },
}

/** Start, steps and result, one insert each, through a pool of 10: no owner, no takeover, no recovery. */
const inserts: Contender = {
  name: 'an insert each',
  async start(url) {
    const pool = new pg.Pool({ connectionString: url, max: 10 })
    await pool.query(
      'create table journal (id uuid, n int, name text, data bytea, at timestamptz default now(), primary key (id, n))',
    )
    const insert = (id: string, n: number, data: unknown) =>
      pool.query('insert into journal (id, n, name, data) values ($1, $2, $3, $4)', [
        id,
        n,
        'step',
        Buffer.from(JSON.stringify(data)),
      ])
    const work = async () => {
      const id = randomUUID()
      for (let i = 0; i < steps + 2; i++) await insert(id, i, value(i))
    }
    return { work, stop: () => pool.end() }
  },
}

const dbos: Contender = {
  name: 'DBOS Transact',
  async start(systemDatabaseUrl) {
    const name = '@dbos-inc/dbos-sdk'
    const { DBOS } = await import(name)
    DBOS.setConfig({ name: 'bench', systemDatabaseUrl, logLevel: 'error', runAdminServer: false })
    const work = DBOS.registerWorkflow(
      async () => {
        for (let i = 0; i < steps; i++) {
          await DBOS.runStep(async () => value(i), { name: 'step' })
        }
      },
      { name: 'work' },
    )
    await DBOS.launch()
    return { work, stop: () => DBOS.shutdown() }
  },
}

const postgres = await startPostgres(['-c', 'max_wal_size=8GB', '-c', 'checkpoint_timeout=30min'])
const admin = new pg.Client({ connectionString: postgres.url })
await admin.connect()

const running: { name: string; work: Work; stop(): Promise<void>; rates: number[] }[] = []
for (const [i, contender] of [pawlSteps, pawlWorkflows, inserts, dbos].entries()) {
  const database = `bench_${i}`
  await admin.query(`create database ${database}`)
  try {
    const started = await contender.start(databaseUrl(postgres.url, database))
    running.push({ name: contender.name, ...started, rates: [] })
  } catch (error) {
    if ((error as { code?: string }).code !== 'ERR_MODULE_NOT_FOUND') throw error
    console.error(`${contender.name} is not installed`)
  }
}

/** Steps a second with `concurrency` pieces of work at a time. */
async function measure(work: Work, ms: number): Promise<number> {
  const began = performance.now()
  let done = 0
  const client = async () => {
    while (performance.now() - began < ms) {
      await work()
      done++
    }
  }
  await Promise.all(Array.from({ length: concurrency }, client))
  return (done * steps) / ((performance.now() - began) / 1000)
}

for (const { work } of running) await measure(work, 1000)
for (let round = 0; round < rounds; round++) {
  for (const contender of running) {
    process.stderr.write(`round ${round + 1}/${rounds} ${contender.name}        \r`)
    contender.rates.push(await measure(contender.work, seconds * 1000))
  }
}

const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!
const ceiling = running.find(({ name }) => name === inserts.name)!
console.log(
  `${concurrency} at a time, ${steps} steps each, ${rounds} rounds of ${seconds} s, medians; Node ${process.version}, PostgreSQL 18`,
)
console.table(
  running.map(({ name, rates }) => ({
    name,
    'steps per second': Math.round(median(rates)),
    'of an insert each': Number(
      median(rates.map((rate, i) => rate / ceiling.rates[i]!)).toFixed(2),
    ),
  })),
)
await Promise.all(running.map(({ stop }) => stop()))
await admin.end()
await postgres.stop()
