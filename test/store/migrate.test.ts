import { readdirSync } from 'node:fs'
import pg from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { Pawl, type PawlError } from '../../lib/index.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { migrate } from '../../lib/store/migrate.ts'
import { silent, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { withRoles } from '../helpers/role.ts'

const database = withDatabase({ empty: true })
const createRole = withRoles(database)
const { pool } = database
const pools: pg.Pool[] = []
const ALL = readdirSync('migrations').sort()

function open(url: string = database.url): NodePostgres {
  const own = new pg.Pool({ connectionString: url, max: 1 })
  pools.push(own)
  return new NodePostgres(own, 10_000, false)
}

/** What Pawl refuses to start with. */
async function refusal(schema: string, options = {}): Promise<PawlError> {
  const pawl = new Pawl({ database: database.apps, schema, logger: silent, ...options })
  return pawl.start().then(
    async () => {
      await pawl.stop()
      throw new Error('It started.')
    },
    (error) => error,
  )
}

/** Two apps over one schema: a race of duplicates has one outcome. */
async function expectItWorks(url: string, schema: string): Promise<void> {
  let runs = 0
  const start = () =>
    startApp(
      url,
      { wait: '10s' },
      (app) => {
        app.post('/', (_req, res) => void res.status(201).json({ run: ++runs }))
      },
      { pawl: { schema } },
    )
  const apps = await Promise.all([start(), start()])
  const keys = Array.from({ length: cases(5, { proof: 20 }) }, freshKey)
  const answers = await Promise.all(
    keys.flatMap((key) =>
      apps.flatMap(({ url }) => [request(url, { key }), request(url, { key })]),
    ),
  )
  expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201]))
  expect(runs).toBe(keys.length)
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((own) => own.end()))
})

describe('migrations', () => {
  it('build the schema from nothing, once, and say what they applied', async () => {
    expect(await migrate(open(), 'fresh')).toEqual(ALL)
    expect(await migrate(open(), 'fresh')).toEqual([])
    const { rows } = await pool.query('select version, name from fresh.migrations')
    expect(rows).toEqual(ALL.map((name, i) => ({ version: i + 1, name })))
  })

  it('eight that start at once: one applies, the others wait for it', async () => {
    const applied = await Promise.all(Array.from({ length: 8 }, () => migrate(open(), 'crowd')))
    expect(applied.flat()).toEqual(ALL)
  })

  it.each(['repeatable read', 'serializable'])(
    'eight at once by a role whose transactions are %s by default',
    async (isolation) => {
      const schema = `crowd_${isolation.replace(' ', '_')}`
      const url = await createRole(
        `alter role ROLE set default_transaction_isolation = '${isolation}';
         create schema ${schema} authorization ROLE`,
      )
      const applied = await Promise.all(Array.from({ length: 8 }, () => migrate(open(url), schema)))
      expect(applied.flat()).toEqual(ALL)
    },
  )

  it('leave nothing behind when one fails', async () => {
    await pool.query('create schema broken; create table broken.processes ()')
    await expect(migrate(open(), 'broken')).rejects.toThrow(/processes.*already exists/)
    const { rows } = await pool.query("select to_regclass('broken.migrations') as there")
    expect(rows[0].there).toBeNull()
  })

  it.each(['order', 'select', 'select_1', 'user', '_', 'pawl2', 'x'.repeat(63)])(
    'and everything else work in a schema named %s',
    async (schema) => {
      await migrate(open(), schema)
      await expectItWorks(database.url, schema)
      const { rows } = await pool.query(
        `select status, response_status, response_body from "${schema}".execution_log limit 1`,
      )
      expect(rows[0]).toMatchObject({ status: 'done', response_status: 201 })
    },
  )

  it('build two schemas side by side that know nothing of each other', async () => {
    await Promise.all([migrate(open(), 'one'), migrate(open(), 'two')])
    const bodies = await Promise.all(
      ['one', 'two'].map(async (schema) => {
        const { url } = await startApp(
          database.url,
          {},
          (app) => app.post('/', (_req, res) => void res.send(schema)),
          { pawl: { schema } },
        )
        return (await request(url, { key: 'the-same' })).text
      }),
    )
    expect(bodies).toEqual(['one', 'two'])
  })
})

describe('the schema that a process finds', () => {
  it('is missing: schema-missing, and the hint says what to run', async () => {
    const error = await refusal('nowhere')
    expect(error).toMatchObject({ name: 'PawlError', code: 'schema-missing' })
    expect(error.message).toContain('"nowhere"')
    expect(error.hint).toContain('npx pawl migrate')
  })

  it('is there but empty: schema-missing as well', async () => {
    await pool.query('create schema hollow')
    expect(await refusal('hollow')).toMatchObject({ code: 'schema-missing' })
  })

  it.each([false, true])(
    'is newer: schema-newer, and nothing is touched (migrate: %s)',
    async (migrating) => {
      const schema = `newer_${migrating}`
      await migrate(open(), schema)
      await pool.query(
        `insert into ${schema}.migrations (version, name, compatible_from, stages)
         values (999, '999_future.sql', 999, 0)`,
      )
      const error = await refusal(schema, { migrate: migrating })
      expect(error).toMatchObject({ code: 'schema-newer' })
      expect(error.hint).toContain('Upgrade pawl')
      const { rows } = await pool.query(`select count(*)::int as n from ${schema}.processes`)
      expect(rows[0].n).toBe(0)
    },
  )

  it('is built at the start, if the app says so', async () => {
    const pawl = new Pawl({
      database: database.url,
      schema: 'built',
      migrate: true,
      logger: silent,
    })
    await pawl.start()
    await pawl.stop()
    expect(await migrate(open(), 'built')).toEqual([])
  })
})

describe('roles and settings', () => {
  it('a role that owns its schema and may create nothing else can migrate and run', async () => {
    const url = await createRole('create schema tenant authorization ROLE')
    expect(await migrate(open(url), 'tenant')).toEqual(ALL)
    await expectItWorks(url, 'tenant')
  })

  it('a role that may only use the schema can run', async () => {
    await migrate(open(), 'granted')
    const url = await createRole(
      `grant usage on schema granted to ROLE;
       grant select on granted.migrations to ROLE;
       grant select, insert, update, delete on granted.executions, granted.processes, granted.steps, granted.wakeups,
         granted.signals, granted.queues, granted.lanes, granted.state to ROLE`,
    )
    await expectItWorks(url, 'granted')
  })

  it('a role that may not see the schema is told so', async () => {
    await migrate(open(), 'private')
    const url = await createRole('select 1')
    const error = await refusal('private', { database: url })
    expect(error.code).toBe('store-unavailable')
    expect(error.message).toContain('permission denied')
    expect(error.hint).toContain('role')
  })

  it.each(['repeatable read', 'serializable'])(
    'a role whose transactions are %s by default: duplicates race, and each has one outcome',
    async (isolation) => {
      const schema = `strict_${isolation.replace(' ', '_')}`
      const url = await createRole(
        `alter role ROLE set default_transaction_isolation = '${isolation}';
         create schema ${schema} authorization ROLE`,
      )
      await migrate(open(url), schema)
      await expectItWorks(url, schema)
    },
  )

  it.each([
    ['empty', "''"],
    ['without pg_catalog', 'decoys'],
    ['with pg_catalog last', 'decoys, pg_catalog'],
  ])('a search_path that is %s', async (name, path) => {
    const schema = `path_${name.replaceAll(' ', '_')}`
    const url = await createRole(
      `create schema ${schema} authorization ROLE;
       create schema if not exists decoys;
       create table if not exists decoys.executions (); create table if not exists decoys.processes ();
       create table if not exists decoys.migrations ();
       grant usage on schema decoys to ROLE;
       alter role ROLE set search_path = ${path}`,
    )
    await migrate(open(url), schema)
    await expectItWorks(url, schema)
  })
})

describe('the database clock', () => {
  it('can be moved, so that a test lives through a week: keys expire and are new again', async () => {
    await migrate(open(), 'clock')
    const travel = (interval: string) =>
      pool.query(
        `create or replace function clock.now() returns timestamptz language sql volatile parallel safe
         as $$select clock_timestamp() + interval '${interval}'$$`,
      )
    let runs = 0
    const { url, pawl } = await startApp(
      database.url,
      {},
      (app, express) => {
        app.use(express.json())
        app.post('/', (_req, res) => void res.json({ run: ++runs }))
      },
      { pawl: { schema: 'clock', processTimeout: '1s' } },
    )
    const key = freshKey()
    const send = async (body: object = {}) => {
      const { status, json, headers } = await request(url, { key, body })
      return [status, json.run, headers['idempotent-replayed']]
    }
    expect(await send()).toEqual([200, 1, undefined])
    await travel('23 hours 59 minutes')
    expect(await send()).toEqual([200, 1, 'true'])
    expect(await send({ other: true })).toEqual([422, undefined, undefined])
    await travel('24 hours 1 minute')
    // The key is new: even another request may use it.
    expect(await send({ other: true })).toEqual([200, 2, undefined])
    expect(await send({ other: true })).toEqual([200, 2, 'true'])
    await travel('7 days')
    expect(await send()).toEqual([200, 3, undefined])
    expect(await pawl.find({ key })).toMatchObject({ status: 'done', attempt: 3 })
  })
})
