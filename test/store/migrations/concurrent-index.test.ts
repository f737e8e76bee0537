import { expect, it } from 'vitest'
import { migrate } from '../../../lib/store/migrate.ts'
import { withDatabase } from '../../helpers/database.ts'
import { progressLog, withNext, withSchemas } from '../../helpers/migrations.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase({ empty: true })
const { open, connect, presentSchema, openTransaction } = withSchemas(database)
const { pool } = database

const INDEX = `-- stage: concurrently
create unique index concurrently if not exists state_value on pawl.state (value);
`

async function index(schema: string) {
  const { rows } = await pool.query(
    'select indexrelid as id, indisvalid as valid from pg_index where indexrelid = to_regclass($1)',
    [`${schema}.state_value`],
  )
  return rows[0]
}

it('A build that fails leaves an invalid index, which the next call drops first', async () => {
  const { all, next } = await withNext(INDEX)
  const schema = await presentSchema()
  await pool.query(
    `insert into ${schema}.state select 'object', n::text, '', 'same', now() from generate_series(1, 2) n`,
  )
  const error = await migrate(open(), schema, { migrations: all }).catch((error) => error)
  expect(error).toMatchObject({ code: 'migration-failed' })
  expect(error.message).toContain('could not create unique index "state_value"')
  expect(error.hint).toMatch(/^Correct the cause/)
  expect(await index(schema)).toMatchObject({ valid: false })

  await pool.query(`delete from ${schema}.state where key = '1'`)
  const { lines, ...logger } = progressLog()
  expect(await migrate(open(), schema, { migrations: all, logger })).toEqual([next.name])
  expect(lines.join('\n')).toContain('dropping state_value, which a failed build has left')
  expect(await index(schema)).toMatchObject({ valid: true })
})

it('A build of a process that died, which PostgreSQL still runs, is waited for and not repeated', async () => {
  const { all, next } = await withNext(INDEX)
  const schema = await presentSchema()
  const reader = await openTransaction(`${schema}.steps`)
  const orphan = await connect()
  const built = orphan.query(
    `create unique index concurrently if not exists state_value on ${schema}.state (value)`,
  )
  const { id } = await waitFor('the build', () => index(schema))
  const { lines, ...logger } = progressLog()
  const migrated = migrate(open(), schema, { migrations: all, logger })
  await waitFor('the wait', () =>
    lines.find((line) => line.includes('waiting for a build of state_value that is under way')),
  )
  await reader.end()
  await built
  expect(await migrated).toEqual([next.name])
  expect(await index(schema)).toEqual({ id, valid: true })
})

it('A build whose connection breaks is repeated', async () => {
  const { all, next } = await withNext(INDEX)
  const schema = await presentSchema()
  const reader = await openTransaction(`${schema}.steps`)
  const { lines, ...logger } = progressLog()
  const migrated = migrate(open(), schema, { migrations: all, logger })
  const { id } = await waitFor('the build', () => index(schema))
  await pool.query(
    'select pg_terminate_backend(pid) from pg_stat_progress_create_index where index_relid = $1',
    [id],
  )
  await waitFor('another try', () => lines.find((line) => line.endsWith('try 1')))
  await reader.end()
  expect(await migrated).toEqual([next.name])
  expect(await index(schema)).toMatchObject({ valid: true })
})

it('An index is dropped', async () => {
  const schema = await presentSchema()
  await pool.query(`create index state_value on ${schema}.state (value)`)
  const { all, next } = await withNext(
    '-- stage: concurrently\ndrop index concurrently if exists pawl.state_value;',
  )
  expect(await migrate(open(), schema, { migrations: all })).toEqual([next.name])
  expect(await index(schema)).toBeUndefined()
})

it('A build says how far it is, and what it waits for', async () => {
  const { all } = await withNext(INDEX)
  const schema = await presentSchema()
  const reader = await openTransaction(`${schema}.steps`)
  const { lines, ...logger } = progressLog()
  const migrated = migrate(open(), schema, { migrations: all, logger })
  const progress = await waitFor('progress', () =>
    lines.find((line) => line.includes('creating index state_value: ')),
  )
  expect(progress).toMatch(new RegExp(`waiting for old snapshots \\(of process ${reader.pid}\\)`))
  await waitFor('the lock', () =>
    lines.find((line) => line.includes(`held by process ${reader.pid}`)),
  )
  await reader.end()
  await migrated
})
