import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, expect, it, vi } from 'vitest'
import { executionId } from '../../lib/engine/execution-id.ts'
import { withDatabase } from '../helpers/database.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { commandFile, runHere, runProcess } from './run-command.ts'

/** Runs the command; never rejects. */
const pawl = (url: string, ...args: string[]) => runHere(args, { DATABASE_URL: url })

// Some commands are processes of their own, which take their time to start.
vi.setConfig({ testTimeout: 180_000 })

describe('pawl migrate', () => {
  const database = withDatabase({ empty: true })

  it('applies what is missing, says what it did, and does it once when many run at once', async () => {
    const env = { DATABASE_URL: database.url }
    const runs = await Promise.all([1, 2, 3].map(() => runProcess(['migrate'], env)))
    expect(runs.map((run) => run.code)).toEqual([0, 0, 0])
    const said = runs.map((run) => run.stdout.trim()).sort()
    expect(said[2]).toMatch(/^applied 001_executions\.sql/)
    expect(said.slice(0, 2)).toEqual(Array(2).fill('Schema "pawl" is up to date.'))
    await pawl(database.url, 'migrate', '--schema', 'other')
    const { rows } = await database.pool.query(
      `select nspname from pg_namespace where nspname in ('pawl', 'other') order by 1`,
    )
    expect(rows.map((row) => row.nspname)).toEqual(['other', 'pawl'])
  })

  it('stops at Ctrl-C, and says how to go on', async () => {
    const locker = await database.pool.connect()
    await locker.query(`select pg_advisory_lock(hashtext('pawl migrate stopped'))`)
    const env = { ...process.env, DATABASE_URL: database.url }
    const args = [await commandFile(), 'migrate', '--schema', 'stopped']
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', (chunk) => {
      stderr += chunk
    })
    const waiting = `select from pg_locks where locktype = 'advisory' and not granted
      and database = (select oid from pg_database where datname = current_database())`
    const count = async () => (await database.pool.query(waiting)).rowCount
    await waitFor('the migration', async () => (await count()) === 1)
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([1, null])
    expect(stderr).toBe(
      'pawl: Stopped by SIGINT. Run `npx pawl migrate` again: it continues where it stopped.\n',
    )
    await waitFor('the end of its statement', async () => (await count()) === 0)
    await locker.query(`select pg_advisory_unlock(hashtext('pawl migrate stopped'))`)
    locker.release()
    expect((await pawl(database.url, 'migrate', '--schema', 'stopped')).code).toBe(0)
  })

  it('says in a sentence what is wrong', async () => {
    const noDatabase = await runHere(['migrate'], { DATABASE_URL: undefined })
    expect(noDatabase.code).toBe(1)
    expect(noDatabase.stderr).toMatch(/No database is given\. Set DATABASE_URL/)
    const unreachable = await pawl('postgres://nobody@127.0.0.1:1/nothing', 'migrate')
    expect(unreachable.code).toBe(1)
    expect(unreachable.stderr).toMatch(/ECONNREFUSED.*Check --database-url/)
    const badSchema = await pawl(database.url, 'migrate', '--schema', 'a"b')
    expect(badSchema.code).toBe(1)
    expect(badSchema.stderr).toMatch(/Option "schema"/)
    const badDuration = await runProcess(['migrate', '--lock-timeout', 'soon'], {
      DATABASE_URL: database.url,
    })
    expect(badDuration.code).toBe(1)
    expect(badDuration.stderr).toMatch(/--lock-timeout.*Give a duration, such as 500ms/)
    const unknown = await runProcess(['migrat'], { DATABASE_URL: database.url })
    expect(unknown.code).toBe(1)
    expect(unknown.stderr).toMatch(/Did you mean migrate\?/)
  })
})

describe('pawl list, show and release', () => {
  const database = withDatabase()

  it('lists what needs attention, shows it, and frees it', async () => {
    await database.pool.query(
      `insert into pawl.executions (id, scope, key, kind, name, fingerprint, status, attempt,
         response_status, response_headers, response_body, created_at, completed_at, expires_at)
       values ($1, 'alice', 'stuck', 'request', 'POST /orders', '', 'unknown', 1,
         null, null, null, now(), null, now() + interval '1 day'),
       ($2, 'alice', 'fine', 'request', 'POST /orders', '', 'done', 1,
         201, '[["Content-Type","application/json"]]', '{"id":7}', now(), now(), now() + interval '1 day'),
       ($3, 'alice', 'given-up', 'request', 'POST /orders', '', 'parked', 10,
         null, null, null, now(), null, now() + interval '1 day'),
       ($4, 'alice', 'died', 'request', 'POST /orders', '', 'running', 1,
         null, null, null, now(), null, now() + interval '1 day')`,
      ['stuck', 'fine', 'given-up', 'died'].map((key) => executionId('alice', key)),
    )
    await database.pool.query(`insert into pawl.wakeups values ($1, 'requests', 'infinity', 10)`, [
      executionId('alice', 'given-up'),
    ])
    const list = await pawl(database.url, 'list')
    expect(list.stdout).toMatch(/unknown +request +alice +stuck +POST \/orders/)
    expect(list.stdout).toMatch(/parked +request +alice +given-up +POST \/orders +10/)
    expect(list.stdout).toMatch(/interrupted +request +alice +died/)
    expect(list.stdout).not.toMatch(/fine/)
    expect((await pawl(database.url, 'list', '--all')).stdout).toMatch(/done +request +alice +fine/)

    const show = await pawl(database.url, 'show', 'fine')
    expect(show.stdout).toMatch(/response_body +\{"id":7\}/)
    const missing = await pawl(database.url, 'show', 'nothing')
    expect(missing.code).toBe(1)
    expect(missing.stderr).toMatch(/no execution with the key or id "nothing"/)

    const done = await pawl(database.url, 'release', 'fine', '--scope', 'alice')
    expect(done.stdout).toMatch(/Nothing to release: the execution is done/)
    const released = await pawl(database.url, 'release', 'stuck', '--scope', 'alice')
    expect(released.stdout).toMatch(/^Released: the next retry with this key runs/)
    const unparked = await pawl(database.url, 'release', 'given-up', '--scope', 'alice')
    expect(unparked.stdout).toMatch(/^Released: a worker/)
    const { rows } = await database.pool.query(
      `select key, status, max_attempts, due_at <= pawl.now() as due
       from pawl.executions e left join pawl.wakeups w on w.execution_id = e.id
       where status = 'released' order by key`,
    )
    expect(rows).toEqual([
      { key: 'given-up', status: 'released', max_attempts: 20, due: true },
      { key: 'stuck', status: 'released', max_attempts: null, due: null },
    ])
  })
})
