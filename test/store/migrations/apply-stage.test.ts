import { describe, expect, it } from 'vitest'
import type { Database, Session } from '../../../lib/store/database/database.ts'
import { PGlite } from '../../../lib/store/database/pglite.ts'
import { migrate } from '../../../lib/store/migrate.ts'
import { readMigrations } from '../../../lib/store/migrations/migration-files.ts'
import { withDatabase } from '../../helpers/database.ts'
import { door } from '../../helpers/door.ts'
import { progressLog, withNext, withSchemas } from '../../helpers/migrations.ts'
import { openPglite } from '../../helpers/pglite.ts'
import { withRoles } from '../../helpers/role.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase({ empty: true })
const createRole = withRoles(database)
const { pool } = database
const { open, presentSchema, openTransaction } = withSchemas(database)

const STAGES = `-- compatible from: 1
-- stage: transaction
alter table pawl.steps add column color text;
alter table pawl.steps add constraint steps_color check (color <> '') not valid;
-- stage: transaction
alter table pawl.steps validate constraint steps_color;
-- stage: concurrently
create index concurrently if not exists steps_color on pawl.steps (color);
`

/** What has become of STAGES. */
async function found(schema: string) {
  const { rows } = await pool.query(
    `select m.stages, m.applied_at is not null as applied,
       exists (select from pg_attribute where attrelid = to_regclass($1) and attname = 'color') as column,
       (select convalidated from pg_constraint where conrelid = to_regclass($1) and conname = 'steps_color') as valid,
       (select indisvalid from pg_index where indexrelid = to_regclass($2)) as index
     from ${schema}.migrations m order by version desc limit 1`,
    [`${schema}.steps`, `${schema}.steps_color`],
  )
  return rows[0]
}

const ALL_DONE = { stages: 3, applied: true, column: true, valid: true, index: true }

describe('a migration with stages', () => {
  it('is applied to a schema that is in use, once, and to an empty database', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const { lines, ...logger } = progressLog()
    expect(await migrate(open(), schema, { migrations: all, logger })).toEqual([next.name])
    expect(await found(schema)).toEqual(ALL_DONE)
    expect(lines[0]).toBe(`${next.name}: applying it`)
    expect(lines).toContain(`${next.name}, stage 3 of 3: creating index steps_color`)
    expect(lines.at(-1)).toBe(`${next.name}: applied`)
    expect(await migrate(open(), schema, { migrations: all })).toEqual([])

    const names = all.map(({ name }) => name)
    expect(await migrate(open(), 'fresh', { migrations: all })).toEqual(names)
    expect(await found('fresh')).toEqual(ALL_DONE)
  })

  it('is applied once by eight processes that start at once', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const each = Array.from({ length: 8 }, () => migrate(open(), schema, { migrations: all }))
    expect((await Promise.all(each)).flat()).toEqual([next.name])
    expect(await found(schema)).toEqual(ALL_DONE)
  })

  it('is applied by PGlite, which has one connection', async () => {
    const { all, next } = await withNext(STAGES)
    const engine = await openPglite()
    const db = new PGlite(engine, 10_000)
    await migrate(db, 'pawl')
    const twice = [1, 2].map(() => migrate(db, 'pawl', { migrations: all }))
    expect((await Promise.all(twice)).flat()).toEqual([next.name])
    const { rows } = await engine.query(
      `select indisvalid from pg_index where indexrelid = 'pawl.steps_color'::regclass`,
    )
    expect(rows).toEqual([{ indisvalid: true }])
    await engine.close()
  })

  it('continues after the last stage that is done', async () => {
    const schema = await presentSchema()
    // Its first stage could not be repeated.
    const failing = await withNext(
      `${STAGES}-- stage: transaction\nselect 1 / 0 from pawl.migrations;`,
    )
    const error = await migrate(open(), schema, { migrations: failing.all }).catch((error) => error)
    expect(error).toMatchObject({ name: 'PawlError', code: 'migration-failed' })
    expect(error.message).toContain(`${failing.next.name}, stage 4 of 4, failed: division by zero`)
    expect(error.hint).toContain('npx pawl migrate')
    expect(await found(schema)).toEqual({ ...ALL_DONE, applied: false })

    const mended = await withNext(`${STAGES}-- stage: transaction\nselect 1;`)
    const { lines, ...logger } = progressLog()
    expect(await migrate(open(), schema, { migrations: mended.all, logger })).toEqual([
      mended.next.name,
    ])
    // Without a wait: who failed has given the lease back.
    expect(lines[0]).toBe(`${mended.next.name}: continuing after stage 3`)
    expect(await found(schema)).toEqual({ ...ALL_DONE, stages: 4 })
  })
})

describe('a stage that waits for a lock', () => {
  it('is tried again until the lock is free, and says what it waits for', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const reader = await openTransaction(`${schema}.steps`)
    const { lines, ...logger } = progressLog()
    const migrated = migrate(open(), schema, { migrations: all, logger })
    await waitFor('a second try', () => lines.find((line) => /try 2$/.test(line)))
    const waiting = await waitFor('the holder', () =>
      lines.find((line) => line.includes('held by')),
    )
    expect(waiting).toContain(`stage 1 of 3: waiting for a lock on ${schema}.steps`)
    expect(waiting).toContain(
      `held by process ${reader.pid}, idle in transaction, in a transaction since`,
    )
    await reader.end()
    expect(await migrated).toEqual([next.name])
    expect(await found(schema)).toEqual(ALL_DONE)
  })

  it('is given up in the end: migration-blocked, which names the holder, and nothing is lost', async () => {
    const { all, next } = await withNext(
      STAGES.replace('alter table pawl.steps validate', 'lock table pawl.state; $&'),
    )
    const schema = await presentSchema()
    const reader = await openTransaction(`${schema}.state`)
    const options = { migrations: all, giveUpMs: 2500 }
    const error = await migrate(open(), schema, options).catch((error) => error)
    expect(error).toMatchObject({ name: 'PawlError', code: 'migration-blocked' })
    expect(error.message).toContain(`${next.name}, stage 2 of 3, was blocked`)
    expect(error.message).toContain(`process ${reader.pid}`)
    expect(await found(schema)).toMatchObject({ stages: 1, applied: false, valid: false })
    await reader.end()
    expect(await migrate(open(), schema, options)).toEqual([next.name])
    expect(await found(schema)).toEqual(ALL_DONE)
  })

  it('leaves the timeouts of the role aside, and those of the database option', async () => {
    const { all, next } = await withNext(
      STAGES.replace('-- stage: c', '-- stage: transaction\nselect pg_sleep(2);\n$&'),
    )
    const schema = 'hasty'
    const url = await createRole(
      `create schema ${schema} authorization ROLE;
       alter role ROLE set statement_timeout = 1500; alter role ROLE set lock_timeout = 300`,
    )
    await migrate(open(url), schema)
    const reader = await openTransaction(`${schema}.state`)
    const { lines, ...logger } = progressLog()
    // The build waits for the transaction that is older than it.
    const migrated = migrate(open(url, 1500), schema, { migrations: all, logger })
    await waitFor('the build', async () => (await found(schema)).index === false)
    await new Promise((resolve) => setTimeout(resolve, 2000))
    await reader.end()
    expect(await migrated).toEqual([next.name])
    expect(await found(schema)).toEqual({ ...ALL_DONE, stages: 4 })
    // In one try.
    expect(lines.join('\n')).not.toMatch(/try \d|dropping/)
  })
})

it('A stage whose commit was not answered is not repeated', async () => {
  const { all, next } = await withNext(STAGES)
  const schema = await presentSchema()
  const real = open()
  let isLost = false
  const losing: Database = Object.assign(Object.create(real), {
    session: (work: (session: Session) => Promise<unknown>, signal?: AbortSignal) =>
      real.session((session) => {
        const transaction: Session['transaction'] = async (inside) => {
          const result = await session.transaction(inside)
          if (isLost) return result
          isLost = true
          throw new Error('Connection terminated unexpectedly')
        }
        return work({ ...session, transaction })
      }, signal),
  })
  const { lines, ...logger } = progressLog()
  expect(await migrate(losing, schema, { migrations: all, logger })).toEqual([next.name])
  expect(lines[1]).toMatch(/stage 1 of 3: Connection terminated unexpectedly, try 1$/)
  expect(await found(schema)).toEqual(ALL_DONE)
})

it('A process that freezes while it holds the lock of a table keeps it for seconds, and goes on later', async () => {
  const { all, next } = await withNext(STAGES)
  const schema = await presentSchema()
  const real = open()
  const freeze = door()
  let frozen = false
  const freezing: Database = Object.assign(Object.create(real), {
    session: (work: (session: Session) => Promise<unknown>, signal?: AbortSignal) =>
      real.session(
        (session) =>
          work({
            ...session,
            transaction: (inside) =>
              session.transaction((query) =>
                inside(async (sql, values) => {
                  const rows = await query(sql, values)
                  if (sql.includes('add column') && !frozen) {
                    frozen = true
                    await freeze.pass()
                  }
                  return rows
                }),
              ),
          }),
        signal,
      ),
  })
  const migrated = migrate(freezing, schema, { migrations: all })
  await freeze.reached
  await pool.query(`select from ${schema}.steps limit 1`)
  expect(await found(schema)).toMatchObject({ stages: 0, column: false })
  freeze.open()
  expect(await migrated).toEqual([next.name])
  expect(await found(schema)).toEqual(ALL_DONE)
})

describe('what was given up by a signal', () => {
  it('is cancelled in PostgreSQL, and continued by the next call at once', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const reader = await openTransaction(`${schema}.state`)
    const interrupt = new AbortController()
    const stopped = migrate(open(), schema, { migrations: all, signal: interrupt.signal })
    await waitFor('the build', async () => (await found(schema)).index === false)
    interrupt.abort(new Error('enough'))
    await expect(stopped).rejects.toThrow('enough')
    await waitFor('the end of the build', async () => {
      const { rows } = await pool.query(
        'select from pg_stat_progress_create_index where datname = current_database()',
      )
      return rows.length === 0
    })
    await reader.end()
    expect(await found(schema)).toMatchObject({ stages: 2, index: false })
    const { lines, ...logger } = progressLog()
    expect(await migrate(open(), schema, { migrations: all, logger })).toEqual([next.name])
    expect(lines[0]).toBe(`${next.name}: continuing after stage 2`)
    expect(await found(schema)).toEqual(ALL_DONE)
  })
})

it('The present migrations take one transaction in an empty database', async () => {
  await pool.query('create schema torn')
  const { all } = await withNext(`${STAGES}-- stage: transaction\nselect 1 / 0;`)
  await expect(migrate(open(), 'torn', { migrations: all })).rejects.toThrow('division by zero')
  const { rows } = await pool.query(
    `select from pg_class where relnamespace = 'torn'::regnamespace`,
  )
  expect(rows).toEqual([])
  expect((await migrate(open(), 'torn')).length).toBe((await readMigrations()).length)
})
