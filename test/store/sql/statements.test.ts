import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { Database, Query } from '../../../lib/store/database/database.ts'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { PgArray } from '../../../lib/store/database/pg-array.ts'
import { ExecutionReader } from '../../../lib/store/execution-reader.ts'
import { type AttemptRef, ExecutionStore } from '../../../lib/store/execution-store.ts'
import { executionStatements } from '../../../lib/store/sql/execution-statements.ts'
import { processStatements } from '../../../lib/store/sql/process-statements.ts'
import { wakeupStatements } from '../../../lib/store/sql/wakeup-statements.ts'
import { StepStore } from '../../../lib/store/step-store.ts'
import { WakeupStore } from '../../../lib/store/wakeup-store.ts'
import { WorkflowStore } from '../../../lib/store/workflow-store.ts'
import { withDatabase } from '../../helpers/database.ts'
import { cases, variants } from '../../helpers/proof.ts'
import { claimNew, claimOf, completionOf, newExecution, storeOver } from '../../helpers/store.ts'

const database = withDatabase()

/** The plans of the hot statements over the table as it is, with their real parameters. */
async function plans(): Promise<Record<string, string>> {
  const real = new NodePostgres(database.pool, 5000, false)
  const found: Record<string, string> = {}
  let name = ''
  const query: Query = async (sql, values) => {
    if (name && /\.(executions|steps|wakeups)/.test(sql)) {
      const rows = await real.query(`explain ${sql}`, values)
      found[name] = rows.map(([line]) => line).join('\n')
    }
    return real.query(sql, values)
  }
  const db: Database = Object.assign(Object.create(real), { query })
  const side = await storeOver(db)
  const claims = Array.from({ length: 64 }, () => claimOf())
  name = 'claim'
  const attempts = await Promise.all(claims.map((claim) => claimNew(side, claim)))
  name = 'read'
  await Promise.all(attempts.map(({ id }) => side.store.read(id)))
  const steps = new StepStore(db, 'pawl', side.owner)
  const record = (attempt: AttemptRef, onlyIfCurrent: boolean) => ({
    ...attempt,
    name: 'a',
    occurrence: onlyIfCurrent ? 2 : 1,
    position: 1,
    kind: 'step' as const,
    output: Buffer.from('1'),
    error: null,
    tookMs: 1,
    completed: true,
    onlyIfCurrent,
  })
  name = 'record'
  await Promise.all(attempts.map((attempt) => steps.record(record(attempt, false))))
  name = 'record guarded'
  await Promise.all(attempts.map((attempt) => steps.record(record(attempt, true))))
  name = 'read journal'
  expect(await steps.readJournal(attempts[0]!)).toHaveLength(2)
  name = 'lease due'
  await new WakeupStore(db, 'pawl', side.owner, 15_000).leaseDue(['requests'], 4, [])
  name = 'record deaths'
  const dead = new PgArray(
    'uuid',
    attempts.slice(0, 8).map(({ id }) => id),
  )
  await db.query(wakeupStatements('"pawl"').recordDeaths, [dead])
  name = 'release'
  await Promise.all(attempts.slice(0, 32).map((attempt) => side.store.release(attempt, 'released')))
  name = 'complete'
  await Promise.all(attempts.map((attempt) => side.store.complete(completionOf(attempt, 'x'))))
  const [first] = attempts
  const seen = await new ExecutionStore(real, 'pawl', randomUUID(), 15_000).read(first!.id)
  name = 'take over'
  await side.store.takeOver(first!.id, seen!)
  name = 'restart expired'
  await side.store.restartExpired(claims[0]!, seen!)
  name = 'mark awaited'
  await side.store.markAwaited(first!.id)
  name = 'release stuck'
  await side.store.releaseStuck(first!.id)
  name = 'undo claim'
  await side.store.undoClaim(first!.id, 1)
  name = 'delete expired'
  await db.query(executionStatements('"pawl"').deleteExpired, [1000])
  const workflows = new WorkflowStore(db, 'pawl', side.owner, 15_000)
  const starts = Array.from({ length: 64 }, () => newExecution({ runsHere: true }))
  name = 'start'
  const started = await Promise.all(starts.map((start) => workflows.start(start)))
  const refs = started.map((result) => (result?.kind === 'started' ? result.ref : attempts[0]!))
  const [waiter, signalled] = refs as [AttemptRef, AttemptRef]
  name = 'suspend'
  await Promise.all(
    refs.map((ref) =>
      workflows.suspend({ ...ref, inbox: 0, due: null, awaits: [], listens: true }),
    ),
  )
  name = 'subscribe to end'
  await workflows.subscribeToEnd(signalled.id, waiter.id)
  name = 'send signal'
  await workflows.sendSignal(signalled.id, 'go', 'sender', null)
  name = 'cancel'
  await workflows.cancel(waiter.id)
  name = 'describe'
  await new ExecutionReader(db, 'pawl').describeInFull(waiter.id)
  name = 'describe without state'
  await new ExecutionReader(db, 'pawl').describe(waiter.id)
  name = 'register'
  const { register } = processStatements('"pawl"')
  for (const id of [randomUUID(), randomUUID()]) {
    await db.query(register, [id, 'web-1', 'host', 1, '0', 60_000, '{}'])
  }
  return found
}

const EXECUTIONS = cases(20_000, { proof: 50_000 })

describe('the deletion of expired executions', () => {
  it('looks up nothing else for those that nobody started or waits for', async () => {
    await database.pool.query(
      `insert into pawl.executions
         (id, scope, key, kind, name, fingerprint, status, attempt, created_at, completed_at, expires_at,
           parent, parent_life)
       select gen_random_uuid(), '', n::text, 'workflow', 'work', '', 'done', 1, pawl.now(), pawl.now(), pawl.now(),
         case when n <= 3 then gen_random_uuid() end, case when n <= 3 then pawl.now() end
       from generate_series(1, 500) as n`,
    )
    const { rows } = await database.pool.query(
      `explain (analyze, costs off, timing off, summary off) ${executionStatements('"pawl"').deleteExpired}`,
      [1000],
    )
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    // Of the three that have a parent, which does not exist: so its journal is not looked at.
    expect(plan).toMatch(
      /executions_pkey on executions other(_\d+)? \(actual rows=0(\.00)? loops=3\)/,
    )
    expect(plan).toMatch(/steps_pkey on steps s(_\d+)? \(never executed\)/)
    expect(await database.pool.query('select from pawl.executions')).toHaveProperty('rowCount', 0)
  })
})

describe('plans of a table that grew from nothing', () => {
  it.each(
    variants(
      ['was never analyzed', 'was analyzed when it was empty', 'was analyzed now'],
      ['was analyzed when it was empty'],
    ),
  )(`reach 64 of ${EXECUTIONS} executions by their primary key when it %s`, async (when) => {
    const analyze = () => database.pool.query('analyze pawl.executions')
    await database.pool.query(
      'truncate pawl.executions, pawl.steps, pawl.wakeups; alter table pawl.executions set (autovacuum_enabled = false)',
    )
    if (when.endsWith('empty')) await analyze()
    // As a process does whose connections live from the first day on.
    await plans()
    await database.pool.query(
      `insert into pawl.executions
         (id, scope, key, kind, name, fingerprint, status, attempt, response_status,
          response_headers, response_body, created_at, expires_at)
       select gen_random_uuid(), 'tenant', n::text, 'request', 'POST /orders', '\\x01', 'done', 1, 200,
         '[]', convert_to(repeat('x', 300), 'UTF8'), pawl.now(), pawl.now() + interval '1 day'
       from generate_series(1, ${EXECUTIONS}) as n`,
    )
    await database.pool.query(
      `insert into pawl.steps (execution_id, life, name, occurrence, position, kind, attempt, started_at)
       select id, created_at, 'earlier', 1, 1, 'step', 1, created_at from pawl.executions`,
    )
    await database.pool.query(
      `insert into pawl.wakeups (execution_id, handler, due_at, max_attempts)
       select id, 'requests', 'infinity', 5 from pawl.executions on conflict do nothing`,
    )
    if (when.endsWith('now')) await analyze()
    const found = await plans()
    expect(Object.keys(found)).toEqual([
      'claim',
      'read',
      'record',
      'record guarded',
      'read journal',
      'lease due',
      'record deaths',
      'release',
      'complete',
      'take over',
      'restart expired',
      'mark awaited',
      'release stuck',
      'undo claim',
      'delete expired',
      'start',
      'suspend',
      'subscribe to end',
      'send signal',
      'cancel',
      'describe',
      'describe without state',
      'register',
    ])
    for (const [name, plan] of Object.entries(found)) {
      expect(plan, name).not.toMatch(/Seq Scan on (executions|steps|wakeups)/)
      if (name !== 'claim') expect(plan, name).toMatch(/executions_pkey/)
    }
    for (const name of ['claim', 'start'])
      expect(found[name], name).toMatch(/Index Scan using executions_pkey on executions e/)
    // One look-up of whoever wants an outcome, and one of its journal entry: never all entries of a journal.
    for (const name of ['read', 'delete expired', 'start', 'describe without state']) {
      expect(found[name], name).toMatch(
        /Index Scan using executions_pkey on executions other(_\d+)?\s.*\n\s+Index Cond: \(id = \(/,
      )
      expect(found[name], name).toMatch(
        /Scan using steps_pkey on steps s(_\d+)?\s.*\n\s+Index Cond: .*execution_id = .*life = .*name = .*occurrence = 1/,
      )
    }
    // A range of the index, and not all of it behind a filter.
    expect(found['delete expired']).toMatch(/Index Cond: \(expires_at <=/)
    // Of the wakeups, those that are due within a lease.
    expect(found.register, found.register).toMatch(
      /Index Cond: .*handler = .*priority = .*due_at > .*due_at <= /,
    )
    await database.pool.query('truncate pawl.executions, pawl.steps, pawl.wakeups, pawl.processes')
  })
})
