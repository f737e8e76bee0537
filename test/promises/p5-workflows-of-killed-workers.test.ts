import { beforeAll, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases, isProof } from '../helpers/proof.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const HELD = cases(40, { proof: 1000 })

const database = withDatabase()
const app = withWorkflows(database)

beforeAll(async () => {
  await database.pool.query('create table effects (key text, pid int); create table go ()')
})

const spawn = (concurrency: number) =>
  spawnApp('killed-workers.ts', {
    DATABASE_URL: database.url,
    PAWL: JSON.stringify({ processTimeout: '2s', workers: { concurrency }, drainTimeout: 0 }),
  })

/** The workflows of test/apps/killed-workers.ts, for a process that only starts them. */
async function starter() {
  const pawl = app.pawl({ workers: false })
  const define = (name: string) =>
    pawl.workflow<number, number>(name, { retry: 1000 }, () => {
      throw new Error('not here')
    })
  await pawl.start()
  return {
    fiveSteps: define('five steps'),
    held: define('held'),
    fanOut: define('fan out'),
  }
}

const one = async (sql: string, values: unknown[] = []) =>
  (await database.pool.query(sql, values)).rows[0]

const inStatus = async (name: string, status: string): Promise<number> =>
  (
    await one('select count(*)::int as n from pawl.executions where name = $1 and status = $2', [
      name,
      status,
    ])
  ).n

const untilDone = (name: string, n: number) =>
  waitFor(
    `${n} results of ${name}`,
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 100))
      return (await inStatus(name, 'done')) === n
    },
    600_000,
  )

describe('P5 Nothing is abandoned silently: workers that are killed (kill -9)', () => {
  it(`with ${HELD} running workflows: others finish all of them, and nothing recorded runs again`, async () => {
    const n = HELD
    const { held } = await starter()
    const victim = await spawn(n)
    const handles = await held.startMany(
      Array.from({ length: n }, (_, input) => ({ input, options: { key: `held ${input}` } })),
    )
    await waitFor(
      'all to run',
      async () => {
        const { n: before } = await one(
          `select count(*)::int as n from pawl.steps where name = 'before'`,
        )
        return before === n
      },
      120_000,
    )
    const lost = await inStatus('held', 'running')
    await victim.kill()
    expect(lost).toBe(n)
    await Promise.all([spawn(n), spawn(n)])
    await database.pool.query('insert into go default values')
    await untilDone('held', n)
    for (const [i, handle] of handles.entries()) {
      if (i % 20 === 0) expect(await handle.result()).toBe(2 * i)
    }
    // What was recorded ran once; what was under way may have run again.
    const { again } = await one(
      `select count(*)::int as again from (select key from effects where key like 'held % before'
       group by key having count(*) > 1) as t`,
    )
    expect(again).toBe(0)
    const { steps, wakeups } = await one(
      `select (select count(*)::int from pawl.step_log where execution_name = 'held') as steps,
         (select count(*)::int from pawl.wakeups) as wakeups`,
    )
    expect([steps, wakeups]).toEqual([3 * n, 0])
    if (isProof) console.log(`${lost} running workflows lost their process, and ended in others`)
  }, 900_000)

  it('at random, of four, under many workflows of five steps: each ends with one result', async () => {
    const n = cases(150, { proof: 20_000 })
    const { fiveSteps } = await starter()
    const workers: ChildApp[] = await Promise.all([1, 2, 3, 4].map(() => spawn(100)))
    const began = performance.now()
    let kills = 0
    let over = false
    const killing = (async () => {
      await waitFor('the first result', async () => (await inStatus('five steps', 'done')) > 0)
      while (!over) {
        const at = Math.floor(Math.random() * workers.length)
        await workers[at]?.kill()
        kills++
        workers[at] = await spawn(100)
        await new Promise((resolve) =>
          setTimeout(resolve, 300 + Math.random() * (isProof ? 2500 : 700)),
        )
      }
    })()
    for (let from = 0; from < n; from += 1000) {
      const inputs = Array.from({ length: Math.min(1000, n - from) }, (_, i) => from + i)
      await fiveSteps.startMany(
        inputs.map((input) => ({ input, options: { key: `five ${input}` } })),
      )
    }
    await untilDone('five steps', n)
    over = true
    await killing
    const seconds = (performance.now() - began) / 1000
    expect(kills).toBeGreaterThan(0)
    const { results, steps, effects, least } = await one(
      `select
         (select count(*)::int from pawl.execution_log where name = 'five steps' and status = 'done'
            and result::text::int = input::text::int + 10) as results,
         (select count(*)::int from pawl.step_log where execution_name = 'five steps' and status = 'done') as steps,
         (select count(*)::int from effects where key like 'five %') as effects,
         (select count(distinct key)::int from effects where key like 'five %') as least`,
    )
    expect([results, steps, least]).toEqual([n, 5 * n, 5 * n])
    const again = effects - least
    // What was under way in a process that died ran again: at most what it ran at a time, for each death.
    expect(again).toBeLessThanOrEqual(kills * 100)
    if (isProof) {
      console.log(
        `${n} workflows: ${seconds.toFixed(0)} s, ${kills} kills, ${again} steps ran again`,
      )
    }
  }, 900_000)

  it('in the middle of a fan-out: the parent gets the results of all of its children', async () => {
    const n = cases(80, { proof: 1000 })
    const { fanOut } = await starter()
    const workers = await Promise.all([spawn(50), spawn(50)])
    const handle = await fanOut.start(n, { key: 'fan' })
    const owner = await waitFor(
      'half of its children',
      async () => {
        if ((await inStatus('square', 'done')) < n / 4) return null
        return one(
          `select p.pid from pawl.executions e left join pawl.processes p on p.id = e.owner where e.id = $1`,
          [handle.id],
        )
      },
      120_000,
    )
    // Where it runs; anywhere, if it sleeps.
    const victim = workers.find(({ pid }) => pid === owner.pid) ?? workers[0]
    await victim?.kill()
    expect(await handle.result()).toBe(((n - 1) * n * (2 * n - 1)) / 6)
    const { children, steps } = await one(
      `select (select count(*)::int from pawl.executions where parent = $1) as children,
         (select count(*)::int from pawl.steps where execution_id = $1) as steps`,
      [handle.id],
    )
    expect([children, steps]).toEqual([n, 2 * n])
    await Promise.all(workers.map((worker) => worker.kill()))
  }, 300_000)
})
