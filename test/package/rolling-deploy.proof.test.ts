/**
 * A rolling deploy with two packed versions of Pawl: this one, and one that has a migration more. The new one
 * migrates, is killed, interrupted and blocked on the way, while processes of the old one serve and restart.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ChildApp, spawnProgram } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { nextName } from '../helpers/migrations.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const root = resolve(import.meta.dirname, '../..')
const database = withDatabase({ empty: true })
let folder: string

const STAGES = `-- Adds what the next version needs.
-- compatible from: VERSION

-- stage: transaction
alter table pawl.executions add column color text,
  add constraint executions_color check (color <> '') not valid;

-- stage: transaction
alter table pawl.executions validate constraint executions_color;

-- stage: concurrently
create index concurrently if not exists executions_color on pawl.executions (color);
`

/** Packs a folder, and unpacks it where an app finds it. What it depends on is found in the folders above. */
function packInto(app: string, source: string, ...flags: string[]): void {
  const modules = join(folder, app, 'node_modules/pawl')
  mkdirSync(modules, { recursive: true })
  const args = ['pack', '--json', '--pack-destination', folder, ...flags]
  const printed = execFileSync('npm', args, { cwd: source, encoding: 'utf8', stdio: 'pipe' })
  const { filename } = JSON.parse(printed.slice(printed.indexOf('[\n')))[0]
  execFileSync('tar', ['-xzf', join(folder, filename), '-C', modules, '--strip-components=1'])
  cpSync(join(import.meta.dirname, 'rolling-deploy/app.mjs'), join(folder, app, 'app.mjs'))
}

beforeAll(async () => {
  const cache = join(root, 'node_modules/.cache/pawl-test')
  mkdirSync(cache, { recursive: true })
  folder = mkdtempSync(join(cache, 'rolling-deploy-'))
  packInto('old', root)
  const next = join(folder, 'next')
  cpSync(join(folder, 'old/node_modules/pawl'), next, { recursive: true })
  const manifest = JSON.parse(readFileSync(join(next, 'package.json'), 'utf8'))
  writeFileSync(join(next, 'package.json'), JSON.stringify({ ...manifest, version: '99.0.0' }))
  const name = await nextName('color')
  const known = String(Number(name.slice(0, 3)) - 1)
  writeFileSync(join(next, 'migrations', name), STAGES.replace('VERSION', known))
  packInto('new', next, '--ignore-scripts')
}, 300_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function startApp(version: 'old' | 'new', instance: string): Promise<ChildApp> {
  const env = { DATABASE_URL: database.url, INSTANCE: instance }
  return spawnProgram([join(folder, version, 'app.mjs')], env)
}

/** The command line of a version. */
function command(version: 'old' | 'new', ...args: string[]) {
  const file = join(folder, version, 'node_modules/pawl/dist/cli/pawl.js')
  const env = { ...process.env, DATABASE_URL: database.url }
  const child: ChildProcess = spawn(process.execPath, [file, ...args], { env })
  const run = { child, output: '', exited: once(child, 'exit') }
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk) => {
      run.output += chunk
    })
  }
  return run
}

/** Orders, again and again, until told to stop, from each app of the moment; the first app that answers counts. */
function customers(urls: () => string[]) {
  const statuses = new Map<number, number>()
  const keys: string[] = []
  let isOver = false
  const each = Array.from({ length: 4 }, async (_, n) => {
    while (!isOver) {
      const all = urls()
      const url = all[n % all.length] as string
      const key = freshKey()
      const answer = await request(`${url}/orders`, { key }).catch(() => null)
      // The process was stopped for its restart: a client sends the request again, elsewhere.
      if (!answer || answer.status === 503) continue
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
      keys.push(key)
    }
  })
  return {
    statuses,
    keys,
    async stop() {
      isOver = true
      await Promise.all(each)
    },
  }
}

it('Two packed versions run side by side while the new one migrates, is killed and interrupted, and goes on', async () => {
  const created = command('old', 'migrate')
  expect(await created.exited, created.output).toEqual([0, null])
  let apps = [await startApp('old', 'web-1'), await startApp('old', 'web-2')]
  const traffic = customers(() => apps.map(({ url }) => url))
  await waitFor('traffic', () => traffic.keys.length > 50)

  /** Restarts one of the apps as this version. */
  const restart = async (n: number, version: 'old' | 'new') => {
    const [stopped] = apps.splice(n, 1)
    await stopped?.kill('SIGTERM')
    apps = apps.toSpliced(n, 0, await startApp(version, `web-${n + 1}`))
  }
  const stages = async () => {
    const { rows } = await database.pool.query(
      'select stages from pawl.migrations order by version desc limit 1',
    )
    return rows[0].stages
  }
  const building = async () => {
    const sql = 'select from pg_stat_progress_create_index where datname = current_database()'
    return (await database.pool.query(sql)).rowCount === 1
  }

  // A transaction that reads the table keeps the first stage waiting.
  const reader = await database.pool.connect()
  await reader.query('begin; select from pawl.executions limit 1')
  const hasty = command('new', 'migrate', '--lock-timeout', '500ms', '--give-up-after', '2s')
  expect(await hasty.exited).toEqual([1, null])
  expect(hasty.output).toMatch(
    /stage 1 of 3, was blocked for 2 s: it waited for a lock on pawl.exec/,
  )
  const blocked = command('new', 'migrate')
  await waitFor('tries', () => blocked.output.includes('try 2'))
  expect(blocked.output).toMatch(/stage 1 of 3: waiting for a lock on pawl.executions \(held by/)
  await restart(0, 'old')
  await reader.query('commit')

  // One that is older than the index keeps the build waiting; the command is killed meanwhile.
  await reader.query('begin isolation level repeatable read; select from pawl.steps limit 1')
  await waitFor('the build', building)
  blocked.child.kill('SIGKILL')
  await blocked.exited
  await restart(1, 'old')
  await expect(startApp('new', 'web-3')).rejects.toThrow('schema-outdated')

  // PostgreSQL still builds; the next command waits for that build, and is interrupted.
  const interrupted = command('new', 'migrate')
  await waitFor('the wait', () =>
    interrupted.output.includes('a build of executions_color that is'),
  )
  interrupted.child.kill('SIGINT')
  expect(await interrupted.exited).toEqual([1, null])
  expect(interrupted.output).toContain('Stopped by SIGINT')

  // The one after that is interrupted in a build of its own.
  await database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_progress_create_index where datname = current_database()`,
  )
  await waitFor('the end of the build', async () => !(await building()))
  const again = command('new', 'migrate')
  await waitFor('the build', building)
  expect(again.output).toContain('dropping executions_color, which a failed build has left')
  again.child.kill('SIGINT')
  expect(await again.exited).toEqual([1, null])
  expect(await stages()).toBe(2)

  const last = command('new', 'migrate')
  await waitFor('the build', building)
  await reader.query('commit')
  reader.release()
  expect(await last.exited, last.output).toEqual([0, null])
  expect(last.output).toMatch(/applied \d{3}_color\.sql\n$/)
  const { rows } = await database.pool.query(
    `select indisvalid from pg_index where indexrelid = 'pawl.executions_color'::regclass`,
  )
  expect(rows).toEqual([{ indisvalid: true }])

  // New beside old; then the deploy is rolled back by half.
  await restart(0, 'new')
  const served = traffic.keys.length
  await waitFor('traffic', () => traffic.keys.length > served + 50)
  await restart(1, 'new')
  await restart(0, 'old')
  const after = traffic.keys.length
  await waitFor('traffic', () => traffic.keys.length > after + 50)
  await traffic.stop()
  expect([...traffic.statuses.keys()]).toEqual([201])

  const { rows: running } = await database.pool.query(
    'select instance, version from pawl.processes order by instance',
  )
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  expect(running).toEqual([
    { instance: 'web-1', version },
    { instance: 'web-2', version: '99.0.0' },
  ])

  // Each replays what the other has recorded, and finishes the workflows that the other has started.
  const [old, latest] = apps as [ChildApp, ChildApp]
  const key = freshKey()
  const first = await request(`${old.url}/orders`, { key })
  const replay = await request(`${latest.url}/orders`, { key })
  expect([replay.text, replay.headers['idempotent-replayed']]).toEqual([first.text, 'true'])
  for (const key of traffic.keys.slice(-20)) {
    for (const { url } of apps) {
      const box = await fetch(`${url}/boxes/${key}`)
      expect(await box.json()).toBe(`box of order ${key}`)
    }
  }
  const unfinished = `select count(*)::int as n from pawl.executions where status <> 'done'`
  await waitFor(
    'the workflows',
    async () => (await database.pool.query(unfinished)).rows[0].n === 0,
  )
  const lost = await database.pool.query(
    `select count(*)::int as n from unnest($1::text[]) k (key)
     where (select count(*) from pawl.executions e where e.key = k.key) <> 2`,
    [traffic.keys],
  )
  expect(lost.rows[0].n).toBe(0)
  const list = command('old', 'list')
  expect(await list.exited, list.output).toEqual([0, null])
})
