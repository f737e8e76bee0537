import pg from 'pg'
import { afterAll, describe, expect, it } from 'vitest'
import type { RunStatement } from '../../../lib/store/database/transaction-host.ts'
import { StepStore } from '../../../lib/store/step-store.ts'
import { withDatabase } from '../../helpers/database.ts'
import { withRoles } from '../../helpers/role.ts'
import { claimNew, claimOf, openStore } from '../../helpers/store.ts'

describe('a statement of Pawl in a transaction of the app', () => {
  const database = withDatabase()
  const newRole = withRoles(database)
  const pools: pg.Pool[] = []
  afterAll(() => Promise.all(pools.map((pool) => pool.end())))

  async function begun() {
    const own = await openStore(database.url)
    const attempt = await claimNew(own, claimOf())
    return { attempt, steps: new StepStore(own.db, 'pawl', own.owner) }
  }

  function over(url: string): RunStatement {
    const pool = new pg.Pool({ connectionString: url, max: 1 })
    pool.on('error', () => {}) // The database may be dropped before it has ended.
    pools.push(pool)
    return async (sql, values) => (await pool.query(sql, [...values])).rows
  }

  const step = {
    name: 'step',
    occurrence: 1,
    position: 1,
    kind: 'transaction',
    output: null,
    error: null,
    tookMs: 1,
    completed: true,
    onlyIfCurrent: false,
  } as const
  const recorded = {
    recorded: true,
    current: true,
    cancelling: false,
    at: expect.stringMatching(/^\d{16}$/),
  }
  const outcome = { status: 200, headers: Buffer.from('[]'), body: null }

  it('says when it has recorded, and null the second time', async () => {
    const { steps, attempt } = await begun()
    const run = over(database.url)
    expect(await steps.recordInTransaction(run, { ...attempt, ...step })).toEqual(recorded)
    expect(await steps.recordInTransaction(run, { ...attempt, ...step })).toMatchObject({
      recorded: false,
    })
    expect(await steps.completeInTransaction(run, attempt, outcome, 1000)).toBe(false)
    expect(await steps.completeInTransaction(run, attempt, outcome, 1000)).toBeNull()
    const late = { ...attempt, ...step, name: 'late' }
    expect(await steps.recordInTransaction(run, late)).toMatchObject({ recorded: false })
  })

  it('does not go by the name of the column, which a plugin of an ORM may change', async () => {
    const { steps, attempt } = await begun()
    const run = over(database.url)
    const renaming: RunStatement = async (sql, values) =>
      (await run(sql, values)).map((row) => ({ X: Object.values(row)[0] }))
    expect(await steps.recordInTransaction(renaming, { ...attempt, ...step })).toEqual(recorded)
    expect(await steps.completeInTransaction(renaming, attempt, outcome, 1000)).toBe(false)
  })

  it('a role that may not use the schema: says what to grant, and the grants are enough', async () => {
    const { steps, attempt } = await begun()
    const without = over(await newRole('select 1'))
    const refused = { code: 'store-refused', hint: expect.stringMatching(/^Grant it usage/) }
    await expect(steps.recordInTransaction(without, { ...attempt, ...step })).rejects.toMatchObject(
      refused,
    )
    await expect(
      steps.completeInTransaction(without, attempt, outcome, 1000),
    ).rejects.toMatchObject(refused)
    const granted = over(
      await newRole(
        `grant usage on schema pawl to ROLE;
         grant execute on all functions in schema pawl to ROLE;
         grant select, insert, update, delete on all tables in schema pawl to ROLE`,
      ),
    )
    expect(await steps.recordInTransaction(granted, { ...attempt, ...step })).toEqual(recorded)
    expect(await steps.completeInTransaction(granted, attempt, outcome, 1000)).toBe(false)
  })

  it('an execution that is not there: it is the wrong database, or was deleted', async () => {
    const { steps, attempt } = await begun()
    await database.pool.query('delete from pawl.executions where id = $1', [attempt.id])
    const run = over(database.url)
    const gone = { code: 'execution-gone' }
    await expect(steps.recordInTransaction(run, { ...attempt, ...step })).rejects.toMatchObject(
      gone,
    )
    await expect(steps.completeInTransaction(run, attempt, outcome, 1000)).rejects.toMatchObject(
      gone,
    )
  })
})
