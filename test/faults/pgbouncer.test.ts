import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Pawl } from '../../lib/index.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import type { StatementError } from '../../lib/store/database/statement-error.ts'
import { migrate } from '../../lib/store/migrate.ts'
import { silent, startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freePort } from '../helpers/free-port.ts'
import { withNext } from '../helpers/migrations.ts'
import { freshKey, request } from '../helpers/request.ts'
import { skipped } from '../helpers/skipped.ts'
import { claimNew, claimOf, storeOver } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

const PGBOUNCER = '/usr/sbin/pgbouncer'

const missing = existsSync(PGBOUNCER)
  ? undefined
  : 'it is not installed (apt-get install pgbouncer)'

describe.skipIf(skipped('PgBouncer', missing))('through PgBouncer in transaction mode', () => {
  const database = withDatabase({ empty: true })
  const hasty = withDatabase({ empty: true })
  let bouncer: ChildProcess
  let directory: string
  let url: string

  beforeAll(async () => {
    // For each connection that PgBouncer opens from now on.
    await database.pool.query(`do $$ begin
      execute format('alter database %I set synchronous_commit = off', current_database());
    end $$`)
    directory = await mkdtemp(join(tmpdir(), 'pawl-pgbouncer-'))
    await chmod(directory, 0o755)
    const target = new URL(database.url)
    const port = await freePort()
    const config = join(directory, 'pgbouncer.ini')
    const password = target.password ? `password=${target.password}` : ''
    await writeFile(
      config,
      `[databases]
* = host=${target.hostname} port=${target.port || 5432} user=${target.username} ${password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
${process.getuid?.() === 0 ? 'user = nobody' : ''}
`,
    )
    bouncer = spawn(PGBOUNCER, [config], { stdio: 'ignore' })
    target.host = `127.0.0.1:${port}`
    url = target.href
    await waitFor('PgBouncer', async () => {
      const client = new pg.Client({ connectionString: url })
      client.on('error', () => {})
      return client.connect().then(
        () => client.end().then(() => true),
        () => false,
      )
    })
  })
  afterAll(async () => {
    const ended = bouncer.exitCode === null ? once(bouncer, 'exit') : undefined
    bouncer.kill('SIGKILL')
    await ended
    await rm(directory, { recursive: true, force: true })
  })

  it('migrates, runs 400 requests of two processes once each, and lets one wait for the other', async () => {
    const pools = Array.from({ length: 4 }, () => new pg.Pool({ connectionString: url, max: 1 }))
    const applied = await Promise.all(
      pools.map((pool) => migrate(new NodePostgres(pool, 10_000, false), 'pawl')),
    )
    expect(applied.flat().toSorted()).toEqual(readdirSync('migrations').toSorted())
    // And one more, stage by stage.
    const { all, next } = await withNext(`-- compatible from: 1
-- stage: transaction
alter table pawl.steps add column color text;
-- stage: concurrently
create index concurrently if not exists steps_color on pawl.steps (color);`)
    const more = await Promise.all(
      pools.map((pool) =>
        migrate(new NodePostgres(pool, 10_000, false), 'pawl', { migrations: all }),
      ),
    )
    expect(more.flat()).toEqual([next.name])
    await Promise.all(pools.map((pool) => pool.end()))

    const runs: string[] = []
    const start = () =>
      startApp(url, { wait: '10s' }, (app) => {
        app.post('/', async (req, res) => {
          runs.push(req.get('idempotency-key') as string)
          await new Promise((resolve) => setTimeout(resolve, 20))
          res.status(201).json({ random: Math.random() })
        })
      })
    const apps = [await start(), await start()]
    const keys = Array.from({ length: 100 }, freshKey)
    const answers = await Promise.all(
      keys.map(async (key) => {
        const all = [...apps, ...apps].map((app) => request(app.url, { key }))
        return new Set((await Promise.all(all)).map(({ status, text }) => `${status} ${text}`))
      }),
    )
    expect(runs.length).toBe(100)
    for (const answer of answers) {
      expect(answer.size).toBe(1)
      expect([...answer][0]).toMatch(/^201 /)
    }
  })

  it('does not change the settings of its sessions for an index, and says why one is refused', async () => {
    const { all, next } = await withNext(
      '-- stage: concurrently\ncreate index concurrently if not exists state_value on pawl.state (value);',
    )
    const through = new URL(url)
    through.pathname = new URL(hasty.url).pathname
    const pool = new pg.Pool({ connectionString: through.href })
    const db = new NodePostgres(pool, 10_000, false)
    await migrate(db, 'pawl')
    await hasty.pool.query(`do $$ begin
      execute format('alter database %I set statement_timeout = 700', current_database());
    end $$`)
    // For the sessions that PgBouncer opens from now on.
    await hasty.pool.query(`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()`)
    const reader = await hasty.pool.connect()
    await reader.query('begin isolation level repeatable read; select from pawl.steps')
    const error = await migrate(db, 'pawl', { migrations: all }).catch((error) => error)
    expect(error).toMatchObject({ code: 'migration-failed' })
    expect(error.message).toContain('statement timeout')
    expect(error.hint).toContain('A pooler is in between')
    for (let n = 0; n < 20; n++) {
      expect(await db.query(`select current_setting('statement_timeout')`)).toEqual([['700ms']])
    }
    const direct = new pg.Pool({ connectionString: hasty.url })
    const migrated = migrate(new NodePostgres(direct, 10_000, false), 'pawl', { migrations: all })
    await new Promise((resolve) => setTimeout(resolve, 1500))
    await reader.query('commit')
    reader.release()
    expect(await migrated).toEqual([next.name])
    await direct.end()
    await db.close()
    await pool.end()
  })

  it('cancels a statement that takes too long, and knows when it has ended', async () => {
    const pool = new pg.Pool({ connectionString: url })
    const db = new NodePostgres(pool, 300, false)
    await database.pool.query('create table guarded (n int)')
    const locker = await database.pool.connect()
    await locker.query('begin; lock table guarded')
    const sent = db.query('insert into guarded values (1)')
    const error: unknown = await sent.catch((error) => error)
    expect(error).toMatchObject({ name: 'StatementError', kind: 'timeout' })
    await (error as StatementError).ended
    const waiting = `select from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`
    expect((await database.pool.query(waiting)).rowCount).toBe(0)
    await locker.query('commit')
    locker.release()
    expect(await db.query('select n from guarded')).toEqual([])
    await db.close()
    await pool.end()
  })

  it('raises synchronous_commit for its own transactions, and leaves the sessions as they were', async () => {
    const pool = new pg.Pool({ connectionString: url, max: 1 })
    const { db, store } = await storeOver(new NodePostgres(pool, 10_000, false))
    const setting = `select current_setting('synchronous_commit')`
    const committed: unknown[] = []
    const probed = Object.assign(Object.create(db), {
      query: (...args: Parameters<typeof db.query>) =>
        db.transaction(async (query) => {
          const rows = await query(...args)
          committed.push(...(await query(setting)).flat())
          return rows
        }),
    })
    await claimNew(await storeOver(probed, false), claimOf())
    expect(committed).toEqual(['on'])
    for (let n = 0; n < 20; n++) {
      await store.claim(claimOf())
      expect(await db.query(setting)).toEqual([['off']])
    }
    await pool.end()
  })

  it('runs workflows that one process starts in another: it polls, since nothing is notified here', async () => {
    const start = async (workers: false | undefined) => {
      const pawl = new Pawl({
        database: url,
        migrate: true,
        logger: silent,
        drainTimeout: 0,
        ...(workers === false && { workers }),
      })
      const workflow = pawl.workflow('elsewhere', async (execution, n: number) => {
        await execution.step('note', () => process.pid)
        const answer = await execution.signal<number>('answer')
        await execution.sleep(20)
        return n + (answer ?? 0)
      })
      await pawl.start()
      return { pawl, workflow }
    }
    const starter = await start(false)
    const worker = await start(undefined)
    const handles = await starter.workflow.startMany(
      Array.from({ length: 20 }, (_, input) => ({ input })),
    )
    await Promise.all(handles.map((handle) => handle.signal('answer', 100)))
    const results = await Promise.all(handles.map((handle) => handle.result()))
    expect(results).toEqual(Array.from({ length: 20 }, (_, n) => n + 100))
    await worker.pawl.stop()
    await starter.pawl.stop()
  })
})
