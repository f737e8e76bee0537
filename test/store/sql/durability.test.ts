import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { describe, expect, it } from 'vitest'
import type { Database, Query } from '../../../lib/store/database/database.ts'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import type { RunStatement } from '../../../lib/store/database/transaction-host.ts'
import { ExecutionStore } from '../../../lib/store/execution-store.ts'
import { QueueStore } from '../../../lib/store/queue-store.ts'
import { executionStatements } from '../../../lib/store/sql/execution-statements.ts'
import { processStatements } from '../../../lib/store/sql/process-statements.ts'
import { queueStatements } from '../../../lib/store/sql/queue-statements.ts'
import { scheduleStatements } from '../../../lib/store/sql/schedule-statements.ts'
import { stateStatements } from '../../../lib/store/sql/state-statements.ts'
import { stepStatements } from '../../../lib/store/sql/step-statements.ts'
import { waitStatements } from '../../../lib/store/sql/wait-statements.ts'
import { wakeupStatements } from '../../../lib/store/sql/wakeup-statements.ts'
import { workflowStatements } from '../../../lib/store/sql/workflow-statements.ts'
import { StateStore } from '../../../lib/store/state-store.ts'
import { type StepRecord, StepStore } from '../../../lib/store/step-store.ts'
import { WaitStore } from '../../../lib/store/wait-store.ts'
import { WakeupStore } from '../../../lib/store/wakeup-store.ts'
import { WorkflowStore } from '../../../lib/store/workflow-store.ts'
import { withDatabase } from '../../helpers/database.ts'
import { claimNew, claimOf, completionOf, newExecution } from '../../helpers/store.ts'

const database = withDatabase()
const SCHEMA = '"pawl"'
const names = new Map(
  [
    executionStatements(SCHEMA),
    processStatements(SCHEMA),
    stepStatements(SCHEMA),
    workflowStatements(SCHEMA),
    wakeupStatements(SCHEMA),
    stateStatements(SCHEMA),
    scheduleStatements(SCHEMA),
    queueStatements(SCHEMA),
    waitStatements(SCHEMA),
  ].flatMap((statements) => Object.entries(statements).map(([name, sql]) => [sql, name] as const)),
)

/** How the transaction of a statement that has written will be committed. */
const SETTING = `select current_setting('synchronous_commit')
  where pg_current_xact_id_if_assigned() is not null`

/** Runs statements of all kinds where this is the default. @returns how each that wrote is committed */
async function settings(byDefault: string): Promise<Record<string, string>> {
  const pool = new pg.Pool({
    connectionString: database.url,
    options: `-c synchronous_commit=${byDefault}`,
    max: 2,
  })
  const real = new NodePostgres(pool, 10_000, false)
  const found: Record<string, string> = {}
  const query: Query = (sql, values) =>
    real.transaction(async (send) => {
      const rows = await send(sql, values)
      const [setting] = await send(SETTING)
      if (setting) found[names.get(sql) ?? sql] = setting[0] as string
      return rows
    })
  const db: Database = Object.assign(Object.create(real), { query })
  const inTransaction: InTransaction = async (work) => {
    const client = await pool.connect()
    await client.query('begin')
    const run: RunStatement = async (sql, values) => {
      const { rows } = await client.query(sql, [...values])
      const setting = (await client.query({ text: SETTING, rowMode: 'array' })).rows[0]
      if (setting) found[names.get(sql) ?? sql] = setting[0]
      return rows
    }
    await work(run)
    await client.query('commit')
    client.release()
  }
  try {
    await exercise(db, inTransaction)
  } finally {
    await pool.end()
  }
  return found
}

/** Runs Pawl's statements in a transaction of the app. */
type InTransaction = (work: (run: RunStatement) => Promise<unknown>) => Promise<void>

async function exercise(db: Database, inTransaction: InTransaction): Promise<void> {
  const owner = randomUUID()
  const sql = { ...executionStatements(SCHEMA), ...processStatements(SCHEMA) }
  await db.query(sql.register, [owner, null, 'host', 1, '0', 60_000, '{}'])
  await db.query(sql.heartbeat, [owner, 60_000])
  const store = new ExecutionStore(db, 'pawl', owner, 15_000)
  const side = { store, db, owner, live: async () => {} }
  const steps = new StepStore(db, 'pawl', owner)
  const workflows = new WorkflowStore(db, 'pawl', owner, 15_000)

  const claim = claimOf(undefined, { retentionMs: 0 })
  const first = await claimNew(side, claim)
  await store.markAwaited(first.id)
  const step: StepRecord = {
    ...first,
    ...{ name: 'a', occurrence: 1, position: 1, kind: 'step', output: Buffer.from('1') },
    ...{ error: null, tookMs: 1, completed: true, onlyIfCurrent: false },
  }
  await steps.record(step)
  await steps.record({ ...step, name: 'b', completed: false, onlyIfCurrent: true })
  await inTransaction((run) => steps.recordInTransaction(run, { ...step, name: 'c' }))
  await steps.record({ ...step, name: 'd', kind: 'giving-up' })
  await store.release(first, 'parked')
  await store.releaseStuck(first.id)
  const second = await store.takeOver(first.id, (await store.read(first.id))!)
  await store.complete({ ...completionOf(second!, 'x'), retentionMs: 0 })
  await store.restartExpired(claim, (await store.read(first.id))!)
  await store.undoClaim((await claimNew(side, claimOf())).id, 1)
  const whole = await claimNew(side, claimOf())
  await inTransaction((run) =>
    steps.completeInTransaction(run, whole, completionOf(whole, 'x').outcome, 0),
  )
  await db.query(sql.deleteExpired, [1])

  const started = await workflows.start(newExecution({ runsHere: true }))
  await inTransaction((run) => workflows.startInTransaction(run, newExecution()))
  if (started?.kind !== 'started') throw new Error('not started')
  const { ref } = started
  const key = { object: 'o', key: 'k' }
  await new StateStore(db, 'pawl', owner).change({
    ...{ ...ref, ...key, name: 'n', value: Buffer.from('1') },
    ...{ entry: { name: 'set n', occurrence: 1 }, position: 1, tookMs: 1 },
  })
  await workflows.sendSignal(ref.id, 'go', 'sender', null)
  await workflows.consumeSignal({
    ...{ ...ref, name: 'go', occurrence: 1, position: 2, output: null, tookMs: 1 },
    ...{ signal: 'go', sender: 'sender' },
  })
  await workflows.suspend({ ...ref, inbox: 1, due: null, awaits: [], listens: true })
  await workflows.cancel(ref.id)
  const wakeups = new WakeupStore(db, 'pawl', owner, 15_000)
  await wakeups.leaseDue(['workflow work'], 9, [])

  const raw = (sql: string) => database.pool.query(sql)
  const queues = new QueueStore(db, 'pawl')
  const limits = { concurrency: 1, concurrencyPerKey: 1, rate: null, maxDepth: 9 }
  await queues.defineQueues([{ name: 'q', limits }], true)
  await db.query(sql.announceQueues, [owner, JSON.stringify({ q: ['workflow work'] })])
  const inQueue = { queue: 'q', lane: 'k' }
  const start = async () => {
    const queued = await workflows.start(newExecution(inQueue))
    return queued?.kind === 'started' ? { ...queued.ref, isQueued: true } : raise('not started')
  }
  const parent = await start()
  const child = await start()
  await inTransaction((run) => workflows.startInTransaction(run, newExecution(inQueue)))
  await queues.arrive('q', ['workflow work'], 9)
  await queues.promote([{ queue: 'q', lane: 'k' }])
  await queues.begin('q', 1)
  await queues.claimCheck(['q'], 0)
  await raw('update pawl.queues set held = 9')
  await queues.mend('q')
  await raw(`update pawl.wakeups set due_at = 'infinity' where execution_id = '${parent.id}'`)
  const waits = new WaitStore(db, 'pawl')
  await waits.walk(parent.id)
  await waits.breakCircle(parent.id, { execution: child.id, circle: [] })
  await raw(`update pawl.wakeups set due_at = 'infinity' where execution_id = '${parent.id}'`)
  if (!(await waits.lend(parent.id, child.id))) raise('not lent')
  await store.complete({ ...completionOf(child, 'x'), isQueued: true })
  const [leased] = (await wakeups.leaseDue(['workflow work'], 9, [])).leased
  await store.release(leased ?? raise('not leased'), 'parked')
  await raw('update pawl.wakeups set max_attempts = 0')
  const { parked } = await wakeups.leaseDue(['workflow work'], 9, [])
  if (parked.length === 0) raise('not parked')
}

function raise(message: string): never {
  throw new Error(message)
}

describe('a commit that Pawl has answered', () => {
  /** What may be lost: it is repeated by itself, or the app's own transaction decides. */
  const asDefault = [
    ...['register', 'heartbeat', 'markAwaited', 'deleteExpired', 'startInTransaction'],
    ...['announceQueues', 'defineQueues', 'begin', 'claimCheck', 'mend'],
  ]
  const durable = [
    ...['claim', 'record', 'recordGuarded', 'recordInTransaction', 'giveUp', 'release'],
    ...['releaseStuck', 'takeOver', 'complete', 'restartExpired', 'undoClaim'],
    ...['completeInTransaction', 'start', 'change', 'sendSignal', 'consumeSignal', 'suspend'],
    ...['cancel', 'leaseDue', 'startQueued', 'arrive', 'promote', 'breakCircle', 'lend'],
    ...['completeQueued', 'releaseQueued', 'park'],
  ]

  it.each([
    ['off', 'on'],
    ['local', 'local'],
    ['remote_apply', 'remote_apply'],
  ])('where synchronous_commit is %s is committed with %s', async (byDefault, raised) => {
    const expected = [
      ...asDefault.map((name) => [name, byDefault]),
      ...durable.map((name) => [name, raised]),
    ]
    expect(await settings(byDefault)).toEqual(Object.fromEntries(expected))
  })
})
