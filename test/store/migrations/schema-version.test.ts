import { describe, expect, it } from 'vitest'
import { Pawl } from '../../../lib/index.ts'
import { migrate } from '../../../lib/store/migrate.ts'
import { MigrationLease } from '../../../lib/store/migrations/migration-lease.ts'
import { checkSchema } from '../../../lib/store/migrations/schema-version.ts'
import { silent, startApp } from '../../helpers/app.ts'
import { withDatabase } from '../../helpers/database.ts'
import { withNext, withSchemas } from '../../helpers/migrations.ts'
import { freshKey, request } from '../../helpers/request.ts'

const database = withDatabase({ empty: true })
const { open, presentSchema } = withSchemas(database)

const ADDED = 'alter table pawl.executions add column color text;'

/** What a process of the present version answers: it starts, serves a request, and replays another's outcome. */
async function serve(schema: string, key: string, migrating: boolean) {
  const { url, close } = await startApp(
    database.url,
    {},
    (app) => app.post('/', (req, res) => void res.status(201).json(req.execution?.key)),
    { pawl: { schema, migrate: migrating } },
  )
  const answers = [await request(url, { key }), await request(url, { key: freshKey() })]
  await close()
  return answers.map(({ status, headers }) => [status, headers['idempotent-replayed']])
}

function refusal(schema: string) {
  const pawl = new Pawl({ database: database.apps, schema, logger: silent })
  return pawl.start().then(
    () => pawl.stop(),
    (error) => error,
  )
}

describe('a process of an earlier version', () => {
  it.each([false, true])(
    'restarts and serves while a compatible migration is applied, and after (migrate: %s)',
    async (migrating) => {
      const schema = await presentSchema()
      const { all, next } = await withNext(`-- compatible from: 1\n${ADDED}`)
      expect(await serve(schema, 'key', migrating)).toEqual([
        [201, undefined],
        [201, undefined],
      ])
      const lease = await MigrationLease.take(open(), schema, next)
      expect(await serve(schema, 'key', migrating)).toEqual([
        [201, 'true'],
        [201, undefined],
      ])
      await lease?.release()
      expect(await migrate(open(), schema, { migrations: all })).toEqual([next.name])
      expect(await serve(schema, 'key', migrating)).toEqual([
        [201, 'true'],
        [201, undefined],
      ])
      await checkSchema(open(), schema, all)
    },
  )

  it('does not start once a migration has begun that is not compatible: schema-newer', async () => {
    const schema = await presentSchema()
    const { all, next } = await withNext(ADDED)
    const lease = await MigrationLease.take(open(), schema, next)
    const error = await refusal(schema)
    expect(error).toMatchObject({ code: 'schema-newer' })
    expect(error.message).toContain(
      `is at version ${next.version}, which needs code that knows version ${next.version}`,
    )
    await lease?.release()
    await migrate(open(), schema, { migrations: all })
    expect(await refusal(schema)).toMatchObject({ code: 'schema-newer' })
  })

  it('does not start if one of several newer migrations is not compatible', async () => {
    const schema = await presentSchema()
    const { all, next } = await withNext(ADDED)
    const after = {
      ...next,
      version: next.version + 1,
      name: 'after',
      compatibleFrom: next.version,
    }
    const last = { ...after, version: next.version + 2, compatibleFrom: 1 }
    const harmless = {
      ...next,
      compatibleFrom: 1,
      stages: [{ kind: 'transaction' as const, sql: 'select 1' }],
    }
    const stages = harmless.stages
    const migrations = [...all.slice(0, -1), harmless, { ...after, stages }, { ...last, stages }]
    await migrate(open(), schema, { migrations: migrations.slice(0, -2) })
    expect(await refusal(schema)).toBeUndefined()
    await migrate(open(), schema, { migrations })
    expect(await refusal(schema)).toMatchObject({ code: 'schema-newer' })
    await checkSchema(open(), schema, migrations.slice(0, -2))
  })
})

describe('a process of a later version', () => {
  it('does not start before its migration is complete: schema-outdated, which says who applies it', async () => {
    const schema = await presentSchema()
    const { all, next } = await withNext(`-- compatible from: 1\n${ADDED}`)
    const outdated = () => checkSchema(open(), schema, all).catch((error) => error)
    expect(await outdated()).toMatchObject({
      code: 'schema-outdated',
      hint: expect.stringContaining('npx pawl migrate'),
    })
    const lease = await MigrationLease.take(open(), schema, next)
    const error = await outdated()
    expect(error).toMatchObject({ code: 'schema-outdated' })
    expect(error.hint).toMatch(new RegExp(`It is being migrated by .+, process ${process.pid}`))
    await lease?.release()
    expect((await outdated()).hint).toContain('npx pawl migrate')
    await migrate(open(), schema, { migrations: all })
    expect(await outdated()).toBeUndefined()
  })
})
