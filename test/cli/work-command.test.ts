import { randomBytes } from 'node:crypto'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { Pawl } from '../../lib/index.ts'
import { silent } from '../helpers/app.ts'
import { bundle } from '../helpers/bundle.ts'
import { type ChildApp, spawnProgram } from '../helpers/child.ts'
import { afterEachTest } from '../helpers/cleanup.ts'
import { withDatabase } from '../helpers/database.ts'
import { proofOnly } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runHere, runProcess } from './run-command.ts'

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url))
const database = withDatabase()
let cli = ''
let app = ''

beforeAll(async () => {
  cli = await bundle(path('lib/cli/pawl.ts'))
  app = await bundle(path('test/apps/workflows.ts'))
})

// Workers are processes of their own, which take their time to start.
vi.setConfig({ testTimeout: 120_000 })

/** Runs a command that ends its process itself; never rejects. */
const pawlProcess = (args: string[], env: Record<string, string> = {}) =>
  runProcess(args, { DATABASE_URL: database.url, ...env })

/** Runs any other command; never rejects. */
const pawl = (args: string[]) => runHere(args, { DATABASE_URL: database.url })

/** A process of `pawl work`; its first line is what it prints first. */
async function work(args: string[] = [], env: Record<string, string> = {}, module = app) {
  const child = await spawnProgram([cli, 'work', module, ...args], {
    DATABASE_URL: database.url,
    ...env,
  })
  workers.add(child)
  return child
}

const starters = new Set<Pawl>()
const workers = new Set<ChildApp>()
afterEachTest(async () => {
  // What one test runs is no work of the next.
  await Promise.all([...workers].map((worker) => worker.kill()))
  workers.clear()
  await Promise.all([...starters].map((pawl) => pawl.stop()))
  starters.clear()
})

/** Starts workflows and runs none. */
async function starter(options: { encryptionKeys?: { id: string; key: string }[] } = {}) {
  const pawl = new Pawl({
    database: database.url,
    logger: silent,
    workers: false,
    drainTimeout: 0,
    ...options,
  })
  starters.add(pawl)
  await pawl.start()
  return {
    pawl,
    long: pawl.workflow<{ ms: number }>('long', () => {}),
    asking: pawl.workflow<unknown>('asking', { version: '2' }, () => {}),
    failing: pawl.workflow<unknown>('failing', { retry: 1 }, () => {}),
  }
}

async function module(name: string, text: string): Promise<string> {
  const file = join(await mkdtemp(join(tmpdir(), 'pawl-work-')), name)
  await writeFile(file, text)
  return file
}

async function until(id: string, status: string) {
  await waitFor(`${id} to be ${status}`, async () => {
    const sql = 'select status from pawl.execution_log where id = $1'
    return (await database.pool.query(sql, [id])).rows[0]?.status === status
  })
}

describe('pawl work', () => {
  it('says what it runs, gives back at a signal what is unfinished, and another goes on at once', async () => {
    const { long } = await starter()
    const first = await work(['--concurrency', '7'], { DRAIN_TIMEOUT: '200ms' })
    expect(first.url).toBe(
      `Process ${first.pid} runs the workflows of schema "pawl", at most 7 at a time:`,
    )
    const runs = first.line('attempt 1')
    const handle = await long.start({ ms: 600_000 })
    expect(await runs).toBe(`attempt 1 runs in ${first.pid}`)
    const second = await work()
    const goesOn = second.line('attempt 2')
    first.process.kill('SIGTERM')
    expect(await goesOn).toBe(`attempt 2 runs in ${second.pid}`)
    expect(await handle.result()).toBe(second.pid)
    expect(await first.exited).toBe(0)
    const { rows } = await database.pool.query(
      `select name, attempt from pawl.step_log where execution_id = $1 order by position`,
      [handle.id],
    )
    expect(rows).toEqual([
      { name: 'begin', attempt: 1 },
      { name: 'end', attempt: 2 },
    ])
  })

  it('lets what runs end in the time it has, and takes no more', async () => {
    const { long } = await starter()
    const worker = await work([], { DRAIN_TIMEOUT: '5 minutes' })
    const runs = worker.line('attempt 1')
    const handle = await long.start({ ms: 3000 })
    await runs
    const stopping = worker.line('SIGINT: taking no more')
    worker.process.kill('SIGINT')
    await stopping
    const late = await long.start({ ms: 0 })
    expect(await handle.result()).toBe(worker.pid)
    expect(await worker.exited).toBe(0)
    expect((await late.status()).status).toBe('waiting')
    await late.cancel()
  })

  it('ends at once at the second signal', async () => {
    const { long } = await starter()
    const worker = await work([], { DRAIN_TIMEOUT: '5 minutes' })
    const runs = worker.line('attempt 1')
    const handle = await long.start({ ms: 600_000 })
    await runs
    const stopping = worker.line('SIGTERM: taking no more')
    worker.process.kill('SIGTERM')
    await stopping
    worker.process.kill('SIGINT')
    expect(await worker.exited).toBe(130)
    await handle.cancel()
  })

  it('says in a sentence what is wrong with the module', async () => {
    const none = await pawlProcess(['work', join(tmpdir(), 'none.js')])
    expect(none.code).toBe(1)
    expect(none.stderr).toMatch(/The module .*none\.js does not exist/)
    const empty = await pawlProcess(['work', await module('empty.mjs', 'export const other = 1')])
    expect(empty.code).toBe(1)
    expect(empty.stderr).toMatch(/empty\.mjs exports no Pawl; it exports other\. Write export/)
  })

  proofOnly('says in a sentence what else may be wrong with the module', async () => {
    const broken = await pawlProcess([
      'work',
      await module('broken.mjs', 'throw new Error("no secret")'),
    ])
    expect(broken.code).toBe(1)
    expect(broken.stderr).toMatch(/broken\.mjs cannot be loaded: no secret/)
    const lib = JSON.stringify(app)
    const bare = await module(
      'bare.mjs',
      `import { pawl } from ${lib}\nexport default new pawl.constructor({ database: 'postgres:///x' })`,
    )
    const noWorkflows = await pawlProcess(['work', bare])
    expect(noWorkflows.code).toBe(1)
    expect(noWorkflows.stderr).toMatch(/has no workflows\. Define them with pawl\.workflow/)
    const wrong = await pawlProcess(['work', app, '--concurrency', 'many'])
    expect(wrong.stderr).toMatch(/Give a whole number from 1/)
    const schema = await pawlProcess(['work', app, '--schema', 'none_here'])
    expect(schema.code).toBe(1)
    expect(schema.stderr).toMatch(/has no schema "none_here"/)
    const started = await module(
      'started.mjs',
      `import { pawl } from ${lib}\nawait pawl.start()\nexport default pawl`,
    )
    const other = await pawlProcess(['work', started, '--schema', 'other'])
    expect(other.stderr).toMatch(/The module has started its Pawl itself, with other options/)
    const itself = await work([], {}, started)
    expect(itself.url).toMatch(/at most 100 at a time/)
  })
})

describe('pawl list, show, release, signal and cancel of workflows', () => {
  it('show them, send to them, end them and let them go on', async () => {
    const { pawl: app, asking, failing } = await starter()
    await work()
    const asked = await asking.start(undefined, { key: 'question 1' })
    const failed = await failing.start(undefined, { key: 'failing 1' })
    await until(failed.id, 'parked')
    await until(asked.id, 'waiting')

    const list = await pawlProcess(['list'])
    expect(list.stdout).toMatch(
      /parked +workflow +failing 1 +failing +1 .*[0-9a-f-]{36} +it is broken/,
    )
    expect(list.stdout).not.toMatch(/asking/)
    const filtered = await pawl(['list', '--all', '--kind', 'workflow', '--name', 'asking'])
    expect(filtered.stdout.trim().split('\n')).toHaveLength(2)
    expect(filtered.stdout).toMatch(/waiting +workflow +question 1 +asking +2 +\d/)
    expect((await pawl(['list', '--status', 'waiting,done'])).stdout).toMatch(/question 1/)
    expect((await pawl(['list', '--kind', 'request'])).stdout).toMatch(/no such execution/)

    const wrong = await pawl(['signal', asked.id, 'answer', '{by: Ada}'])
    expect(wrong.code).toBe(1)
    expect(wrong.stderr).toMatch(/The value is not JSON/)
    await pawl(['signal', asked.id, 'note', '"unread"', '--id', 'mine'])
    const show = await pawl(['show', asked.id])
    expect(show.stdout).toMatch(/^name +asking$/m)
    expect(show.stdout).toMatch(/^version +2$/m)
    expect(show.stdout).toMatch(/Signals not yet received:\nname +sender +sent\nnote +mine/)
    for (let i = 0; i < 2; i++) {
      const sent = await pawl(['signal', asked.id, 'answer', '{"by":"Ada"}', '--id', 'one'])
      // Twice is once; after it has ended there is nobody to send it to.
      if (i === 0) expect(sent.stdout).toMatch(/^Sent "answer" to/)
    }
    expect(await asked.result()).toEqual({ by: 'Ada' })
    const journal = (await pawl(['show', 'question 1'])).stdout
    expect(journal).toMatch(/Journal:\nposition +kind +name/)
    expect(journal).toMatch(/1 +signal +answer +done +\d .*\{"by": ?"Ada"\}/)
    const over = await pawl(['signal', asked.id, 'answer'])
    expect(over.code).toBe(1)
    expect(over.stderr).toMatch(/does not exist, or it has ended/)

    const released = await pawl(['release', failed.id])
    expect(released.stdout).toMatch(/^Released: a worker/)
    await waitFor('another attempt', async () => (await failed.status()).attempt === 2)
    await until(failed.id, 'parked')
    const cancelled = await pawl(['cancel', failed.id])
    expect(cancelled.stdout).toMatch(/^Cancelling/)
    await until(failed.id, 'cancelled')
    expect((await pawl(['cancel', failed.id])).stdout).toMatch(/^Nothing to cancel/)
    const { rows } = await database.pool.query(
      `select key from pawl.executions where name = 'schedule yearly'`,
    )
    expect(rows).toHaveLength(1)
    expect(rows[0].key).toMatch(/^@yearly Europe\/Berlin \d{4}-12-31T23:00:00\.000Z$/)

    // Nobody has that version: it needs somebody once it is overdue.
    const orphan = await app.workflow('asking', { version: '1' }, () => {}).start(undefined)
    expect((await pawl(['list'])).stdout).not.toMatch(orphan.id)
    await database.pool.query(
      `update pawl.wakeups set due_at = due_at - interval '2 minutes' where execution_id = $1`,
      [orphan.id],
    )
    expect((await pawl(['list'])).stdout).toMatch(new RegExp(`waiting .*asking +1 .*${orphan.id}`))
  })

  it('send nothing in the clear to what is encrypted, but with the keys of the app', async () => {
    const key = randomBytes(32).toString('base64')
    const { asking } = await starter({ encryptionKeys: [{ id: 'test', key }] })
    const handle = await asking.start(undefined)
    const refused = await pawl(['signal', handle.id, 'answer', '"secret"'])
    expect(refused.code).toBe(1)
    expect(refused.stderr).toMatch(/is encrypted, and the command line has no key.*Give --module/)
    const env = { ENCRYPTION_KEY: key }
    const sent = await pawlProcess(
      ['signal', handle.id, 'answer', '"secret"', '--module', app],
      env,
    )
    expect(sent).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Sent "answer"/) })
    const { rows } = await database.pool.query(
      `select substr(value, 1, 1) = '\\x02' as sealed from pawl.signals where execution_id = $1`,
      [handle.id],
    )
    expect(rows).toEqual([{ sealed: true }])
    const worker = await work([], env)
    expect(await handle.result()).toBe('secret')
    expect(worker.process.exitCode).toBe(null)
  })
})
