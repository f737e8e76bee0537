import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { bundle } from '../helpers/bundle.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases, isProof } from '../helpers/proof.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('Workflows that sleep', () => {
  it('take up a row each and no memory, and all of them wake', async () => {
    const file = await bundle(fileURLToPath(new URL('../apps/sleepers.ts', import.meta.url)))
    const child = spawn(process.execPath, ['--expose-gc', file], {
      env: { ...process.env, DATABASE_URL: database.url },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const line = async () => (await lines.next()).value as string
    expect(await line()).toBe('ready')
    const sleep = async (n: number) => {
      child.stdin.write(`${n}\n`)
      const [, heap, alive] = (await line()).split(' ').map(Number) as [number, number, number]
      return { heap, alive }
    }
    const [base, more] = [cases(500, { proof: 1000 }), cases(500, { proof: 99_000 })]
    const began = performance.now()
    const few = await sleep(base)
    const all = await sleep(more)
    const seconds = (performance.now() - began) / 1000
    child.stdin.end()
    child.kill('SIGKILL')
    await once(child, 'exit')
    // What suspended executions held can be collected.
    expect([few.alive, all.alive]).toEqual([0, 0])
    const grown = all.heap - few.heap
    expect(grown).toBeLessThan(Math.max(2 ** 21, more * 20))
    if (isProof) {
      console.log(
        `1,000 sleep: heap ${(few.heap / 2 ** 20).toFixed(1)} MiB; ${1000 + more}: ${(all.heap / 2 ** 20).toFixed(1)} MiB, after ${seconds.toFixed(0)} s`,
      )
    }

    // A day later.
    await database.pool.query(
      `create or replace function pawl.now() returns timestamptz language sql volatile
         as 'select clock_timestamp() + interval ''1 day'' '`,
    )
    const waking = performance.now()
    const pawl = app.pawl({ workers: { concurrency: 500 }, processTimeout: '10 minutes' })
    let woken = 0
    pawl.workflow('sleeper', async (execution, n: number) => {
      await execution.sleep('1 day')
      woken++
      return n
    })
    await pawl.start()
    const left = async () =>
      (
        await database.pool.query(
          `select count(*)::int as n from pawl.executions where status <> 'done'`,
        )
      ).rows[0].n
    while ((await left()) > 0) await new Promise((resolve) => setTimeout(resolve, 200))
    expect(woken).toBe(base + more)
    if (isProof)
      console.log(`all woke within ${((performance.now() - waking) / 1000).toFixed(0)} s`)
  }, 900_000)
})
