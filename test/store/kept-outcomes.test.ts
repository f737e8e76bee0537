import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { RunStatement } from '../../lib/store/database/transaction-host.ts'
import { ExecutionReader } from '../../lib/store/execution-reader.ts'
import type { AttemptRef } from '../../lib/store/execution-store.ts'
import { Retention } from '../../lib/store/retention.ts'
import { workflowStatements } from '../../lib/store/sql/workflow-statements.ts'
import { StepStore } from '../../lib/store/step-store.ts'
import { type NewExecution, WorkflowStore } from '../../lib/store/workflow-store.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import {
  claimNew,
  claimOf,
  completionOf,
  newExecution,
  openStore,
  type TestStore,
} from '../helpers/store.ts'

const database = withDatabase()
const query = (sql: string, values: unknown[] = []) => database.pool.query(sql, values)

let side: TestStore
let workflows: WorkflowStore
beforeEach(async () => {
  side = await openStore(database.url)
  workflows = new WorkflowStore(side.db, 'pawl', side.owner, 15_000)
})
afterEach(() => query('truncate pawl.executions, pawl.processes, pawl.steps, pawl.wakeups'))

/** Starts a workflow, which this process runs. */
async function start(other: Partial<NewExecution> = {}): Promise<AttemptRef> {
  const started = await workflows.start(newExecution({ runsHere: true, ...other }))
  if (started?.kind !== 'started') throw new Error('not started')
  return started.ref
}

/** The options of a start by this execution, which wants the result. */
const startedBy = ({ id, incarnation }: AttemptRef) => ({
  parent: id,
  parentIncarnation: incarnation,
})

/** Records an outcome that has expired at once. */
const end = async (ref: AttemptRef) =>
  void (await side.store.complete({ ...completionOf(ref, '42'), retentionMs: 0 }))

/** A workflow that this execution has started, and that has ended and expired. */
async function childOf(parent: AttemptRef, other: Partial<NewExecution> = {}): Promise<AttemptRef> {
  const child = await start({ ...startedBy(parent), ...other })
  await end(child)
  return child
}

const exists = async ({ id }: { id: string }) =>
  (await query('select from pawl.executions where id = $1', [id])).rowCount === 1

const sweep = () => new Retention(side.db, 'pawl', 60_000, silent).sweep()

/** Sweeps an hour later, for those whose expiry retention has moved on. */
async function sweepLater(): Promise<number> {
  await query(
    `update pawl.executions set expires_at = pawl.now()
     where expires_at between pawl.now() + interval '55 minutes' and pawl.now() + interval '1 hour'`,
  )
  return sweep()
}

/** Writes the entry that `handle.result()` writes in a workflow. */
const journalResult = (waiter: AttemptRef, of: { id: string }) =>
  new StepStore(side.db, 'pawl', side.owner).record({
    ...{ ...waiter, name: `result work ${of.id}`, occurrence: 1, position: 1, kind: 'result' },
    ...{ output: null, error: null, tookMs: 0, completed: true, onlyIfCurrent: false },
  })

describe('an expired outcome', () => {
  it.each(['running', 'waiting', 'released', 'parked'])(
    'is kept while the workflow that started it is %s, and goes once that has ended',
    async (status) => {
      const parent = await start()
      const child = await childOf(parent)
      await query('update pawl.executions set status = $2 where id = $1', [parent.id, status])
      expect(await sweep()).toBe(0)
      expect(await sweepLater()).toBe(0)
      expect(await exists(child)).toBe(true)
      await query('update pawl.executions set status = $2 where id = $1', [parent.id, 'running'])
      await side.store.complete(completionOf(parent, 'x'))
      expect(await sweepLater()).toBe(1)
      expect(await exists(child)).toBe(false)
    },
  )

  it.each(['released', 'unknown', 'parked'] as const)(
    'is kept while the request that started it is %s, and goes once that is deleted',
    async (status) => {
      const parent = await claimNew(side, claimOf())
      const child = await childOf(parent)
      await side.store.release(parent, status)
      expect(await sweep()).toBe(0)
      await query(`update pawl.executions set expires_at = 'epoch' where id = $1`, [parent.id])
      // Deletes the parent, whose own retention is over.
      expect(await sweep()).toBe(1)
      expect(await exists(child)).toBe(true)
      expect(await sweepLater()).toBe(1)
    },
  )

  it('goes at its time if the one that started it does not ask for it', async () => {
    const parent = await start()
    const child = await childOf(parent, { parentIncarnation: null })
    expect(await sweep()).toBe(1)
    expect(await exists(child)).toBe(false)
  })

  it('goes if another execution has the key of the one that started it', async () => {
    const claim = claimOf(undefined, { retentionMs: 0 })
    const parent = await claimNew(side, claim)
    const child = await childOf(parent)
    await end(parent)
    const seen = await side.store.read(parent.id)
    await side.store.restartExpired({ ...claim, retentionMs: 60_000 }, seen!)
    expect(await sweep()).toBe(1)
    expect([await exists(parent), await exists(child)]).toEqual([true, false])
  })

  it('goes once the one that started it has journaled it, and not with that of another', async () => {
    const parent = await start()
    const [first, second] = [await childOf(parent), await childOf(parent)]
    await journalResult(parent, second)
    expect(await sweep()).toBe(1)
    expect([await exists(first), await exists(second)]).toEqual([true, false])
    // The journal of an earlier execution under the parent's key says nothing.
    await journalResult(parent, first)
    await query(`update pawl.steps set life = life - interval '1 day'`)
    expect(await sweepLater()).toBe(0)
    await query(`update pawl.steps set life = life + interval '1 day'`)
    expect(await sweepLater()).toBe(1)
  })

  it('is kept for one that waits for it and did not start it, until that has journaled it or ended', async () => {
    const [awaited, other] = [await start(), await start()]
    const [one, two] = [await start(), await start()]
    await workflows.subscribeToEnd(awaited.id, one.id)
    await workflows.subscribeToEnd(awaited.id, two.id)
    await end(awaited)
    await end(other)
    // That of nobody.
    expect(await sweep()).toBe(1)
    await journalResult(one, awaited)
    expect(await sweepLater()).toBe(0)
    await side.store.complete(completionOf(two, 'x'))
    expect(await sweepLater()).toBe(1)
  })

  it('goes if another execution has the key of the one that waited for it', async () => {
    const awaited = await start()
    const waiter = await start()
    await workflows.subscribeToEnd(awaited.id, waiter.id)
    await end(awaited)
    await query(`update pawl.executions set created_at = pawl.now() where id = $1`, [waiter.id])
    expect(await sweep()).toBe(1)
    expect(await exists(waiter)).toBe(true)
  })

  it('of a chain is kept for the next one up only', async () => {
    const grandparent = await start()
    const parent = await start(startedBy(grandparent))
    const child = await childOf(parent)
    expect(await sweep()).toBe(0)
    await end(parent)
    expect(await sweepLater()).toBe(1)
    expect([await exists(parent), await exists(child)]).toEqual([true, false])
    await side.store.complete(completionOf(grandparent, 'x'))
    expect(await sweepLater()).toBe(1)
    expect(await exists(parent)).toBe(false)
  })

  it('that is kept expires an hour later, and keeps none behind it waiting', async () => {
    const parent = await start()
    await query(
      `insert into pawl.executions
         (id, scope, key, kind, name, fingerprint, status, attempt, parent, parent_life, created_at,
           completed_at, expires_at)
       select gen_random_uuid(), '', n::text, 'workflow', 'work', '', 'done', 1, $1, p.created_at, pawl.now(),
         pawl.now(), pawl.now() - interval '1 day' from generate_series(1, 2500) as n, pawl.executions p
       where p.id = $1`,
      [parent.id],
    )
    const others = await Promise.all(Array.from({ length: 10 }, () => start()))
    await Promise.all(others.map(end))
    const said: unknown[] = []
    const logger = { ...silent, debug: (_: string, fields?: object) => void said.push(fields) }
    const sweeper = new Retention(side.db, 'pawl', 60_000, logger)
    expect(await sweeper.sweep()).toBe(10)
    expect(said.at(-1)).toMatchObject({ deleted: 10, kept: 2500, more: false })
    said.length = 0
    expect(await sweeper.sweep()).toBe(0)
    expect(said).toEqual([])
    const { rows } = await query(
      `select count(*)::int as n, min(expires_at - pawl.now()) > interval '59 minutes'
         and max(expires_at - pawl.now()) <= interval '1 hour' as in_an_hour
       from pawl.executions where parent = $1`,
      [parent.id],
    )
    expect(rows).toEqual([{ n: 2500, in_an_hour: true }])
  })

  it('is deleted or kept once by several that sweep while the ones that want it end', async () => {
    const parents = await Promise.all(Array.from({ length: 40 }, () => start()))
    const children = await Promise.all(parents.map((parent) => childOf(parent)))
    await Promise.all(children.slice(0, 10).map((child, i) => journalResult(parents[i]!, child)))
    const ending = parents.slice(10, 20)
    const [one, two] = await Promise.all([
      sweep(),
      sweep(),
      ...ending.map((parent) => side.store.complete(completionOf(parent, 'x'))),
    ])
    expect((one as number) + (two as number)).toBeGreaterThanOrEqual(10)
    await Promise.all([sweepLater(), sweep()])
    const { rows } = await query('select id from pawl.executions where parent is not null')
    const kept = children.slice(20).map(({ id }) => id)
    expect(rows.map(({ id }) => id).sort()).toEqual(kept.sort())
  })
})

describe('whether an outcome has expired', () => {
  /** What every statement that asks says: whether the execution is there, with its outcome. */
  async function answers(execution: NewExecution) {
    const started = await workflows.start(execution)
    const read = await side.store.read(execution.id)
    const described = await new ExecutionReader(side.db, 'pawl').describe(execution.id)
    const { startInTransaction } = workflowStatements('"pawl"')
    let found: unknown
    const run: RunStatement = async (sql, values) => {
      const { rows } = await query(sql, [...values])
      if (sql === startInTransaction) found ??= rows[0].found
      return rows
    }
    await workflows.startInTransaction(run, execution)
    return {
      start: started?.kind === 'found' && !started.expired,
      read: read?.expired === false,
      describe: described !== null,
      startInTransaction: found === execution.fingerprint.toString('base64'),
    }
  }

  it('is the same for all that ask: those that start it, read it, describe it and delete it', async () => {
    const [parent, waiter] = [await start(), await start()]
    const [child, awaited] = [newExecution(startedBy(parent)), newExecution()]
    for (const execution of [child, awaited]) {
      const ref = await start(execution)
      await workflows.subscribeToEnd(awaited.id, waiter.id)
      await end(ref)
      const all = (is: boolean) => ({ start: is, read: is, describe: is, startInTransaction: is })
      expect(await answers(execution)).toEqual(all(true))
      await workflows.deleteIfExpired(execution.id)
      expect(await exists(execution)).toBe(true)
      await side.store.complete(completionOf(execution === child ? parent : waiter, 'x'))
      // Replaced by the last one, the start in a transaction.
      expect(await answers(execution)).toEqual(all(false))
      const { rows } = await query(
        `select e.status, e.parent_life = p.created_at as wanted
         from pawl.executions e left join pawl.executions p on p.id = e.parent where e.id = $1`,
        [execution.id],
      )
      expect(rows).toEqual([{ status: 'waiting', wanted: execution === child ? true : null }])
    }
  })

  it('is decided for requests as before, which nobody starts or waits for', async () => {
    const claim = claimOf()
    await end(await claimNew(side, claim))
    expect(await side.store.claim(claim)).toMatchObject({ found: { expired: true } })
  })
})
