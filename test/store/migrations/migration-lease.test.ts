import { describe, expect, it } from 'vitest'
import { migrate } from '../../../lib/store/migrate.ts'
import type { Migration } from '../../../lib/store/migrations/migration-files.ts'
import { LeaseLostError, MigrationLease } from '../../../lib/store/migrations/migration-lease.ts'
import { withDatabase } from '../../helpers/database.ts'
import { progressLog, withNext, withSchemas } from '../../helpers/migrations.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase({ empty: true })
const { open, presentSchema, openTransaction } = withSchemas(database)
const { pool } = database

const STAGES = `-- stage: transaction
alter table pawl.state add column color text;
-- stage: concurrently
create index concurrently if not exists state_color on pawl.state (color);
`

/** What is recorded of a migration; stages is 0 if it has not begun. */
async function row(schema: string, { version }: Migration) {
  const { rows } = await pool.query(
    `select stages, applied_at is not null as applied, owner from ${schema}.migrations where version = $1`,
    [version],
  )
  return rows[0] ?? { stages: 0 }
}

describe('the lease on a migration', () => {
  it('is of one process for as long as it renews it', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const reader = await openTransaction(`${schema}.steps`)
    const options = { migrations: all, leaseMs: 1500 }
    const first = migrate(open(), schema, options)
    await waitFor('the build', async () => (await row(schema, next)).stages === 1)
    const { owner } = await row(schema, next)
    const { lines, ...logger } = progressLog()
    const second = migrate(open(), schema, { ...options, logger })
    // Two leases and a half without a renewal.
    await new Promise((resolve) => setTimeout(resolve, 4000))
    expect(await row(schema, next)).toMatchObject({ owner, stages: 1 })
    expect(lines).toEqual([expect.stringMatching(/waiting for .+, process \d+, which applies it$/)])
    await reader.end()
    expect(await Promise.all([first, second])).toEqual([[next.name], []])
  })

  it('is taken over when its holder has died, after the stages that are done', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const dead = await MigrationLease.take(open(), schema, next, 3000)
    await open().session(async ({ transaction }) =>
      transaction(async (query) => {
        await query(`alter table ${schema}.state add column color text`)
        await dead?.record(query, 1)
      }),
    )
    const { lines, ...logger } = progressLog()
    expect(await migrate(open(), schema, { migrations: all, logger })).toEqual([next.name])
    expect(lines.slice(0, 2)).toEqual([
      expect.stringContaining('which applies it'),
      `${next.name}: continuing after stage 1`,
    ])
    expect(await row(schema, next)).toMatchObject({ applied: true, stages: 2 })
    expect(await dead?.isRecorded(open().query, 1).catch((error) => error)).toBeInstanceOf(
      LeaseLostError,
    )
  })

  it('is had by one of eight that want it at once', async () => {
    const { next } = await withNext(STAGES)
    const schema = await presentSchema()
    const each = Array.from({ length: 8 }, () => MigrationLease.take(open(), schema, next))
    expect((await Promise.all(each)).filter((lease) => lease !== null)).toHaveLength(1)
  })

  it('that was lost rolls the stage back, and stops the holder', async () => {
    const { all, next } = await withNext(
      STAGES.replace('add column color text', '$&; select pg_sleep(2)'),
    )
    const schema = await presentSchema()
    const stopped = migrate(open(), schema, {
      migrations: all,
      // It renews too late to learn of it before it records the stage.
      leaseMs: 60_000,
      signal: AbortSignal.timeout(4000),
    }).catch((error) => error)
    await waitFor('the stage', async () => {
      const { rows } =
        await pool.query(`select from pg_stat_activity where query like '%pg_sleep(2)%'
        and pid <> pg_backend_pid() and datname = current_database()`)
      return rows.length > 0
    })
    await pool.query(
      `update ${schema}.migrations set owner = gen_random_uuid() where version = ${next.version}`,
    )
    // It waits for the other process, until the signal.
    expect(await stopped).toMatchObject({ name: 'TimeoutError' })
    expect(await row(schema, next)).toMatchObject({ stages: 0, applied: false })
    const { rows } = await pool.query(
      `select from pg_attribute where attrelid = '${schema}.state'::regclass and attname = 'color'`,
    )
    expect(rows).toEqual([])
  })

  it('that was lost cancels a long stage at the next renewal', async () => {
    const { all, next } = await withNext(STAGES)
    const schema = await presentSchema()
    const reader = await openTransaction(`${schema}.steps`)
    const interrupt = new AbortController()
    const { lines, ...logger } = progressLog()
    const stopped = migrate(open(), schema, {
      ...{ migrations: all, leaseMs: 600, logger, signal: interrupt.signal },
    }).catch((error) => error)
    await waitFor('the build', async () => (await row(schema, next)).stages === 1)
    await waitFor('its statement', async () => {
      const { rows } = await pool.query(
        'select from pg_stat_progress_create_index where datname = current_database()',
      )
      return rows.length > 0
    })
    await pool.query(
      `update ${schema}.migrations set owner = gen_random_uuid(), expires_at = 'infinity', host = 'elsewhere'
       where version = ${next.version}`,
    )
    await waitFor('the wait', () => lines.find((line) => line.includes('waiting for elsewhere')))
    await waitFor('the end of its statement', async () => {
      const { rows } = await pool.query(
        'select from pg_stat_progress_create_index where datname = current_database()',
      )
      return rows.length === 0
    })
    interrupt.abort(new Error('enough'))
    expect((await stopped).message).toBe('enough')
    await reader.end()
  })
})
