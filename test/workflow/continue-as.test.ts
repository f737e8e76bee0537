import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { WorkflowStore } from '../../lib/store/workflow-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { newExecution, openStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('continueAs', () => {
  it('begins a new life with a new journal; handles, keys and waiting parents follow', async () => {
    const pawl = app.pawl()
    const idempotencyKeys = new Set<string>()
    const counter = pawl.workflow(
      'counter',
      async (execution, { n, to }: { n: number; to: number }) => {
        const next = await execution.step('add', ({ idempotencyKey }) => {
          idempotencyKeys.add(idempotencyKey)
          return n + 1
        })
        if (next < to) return execution.continueAs({ n: next, to })
        return { next, attempt: execution.attempt }
      },
    )
    const parent = pawl.workflow('parent of a counter', async () =>
      (await counter.start({ n: 0, to: 5 }, { key: 'counted' })).result(),
    )
    await pawl.start()
    const handle = await parent.start(undefined)
    expect(await handle.result()).toEqual({ next: 5, attempt: 1 })
    const { id } = counter.handle('counted')
    expect(await app.journal(id)).toEqual(['step add'])
    expect(idempotencyKeys.size).toBe(5)
    const { rows } = await database.pool.query(
      'select count(*)::int as n from pawl.steps where execution_id = $1',
      [id],
    )
    expect(rows[0].n).toBe(1)
    // The key still stands for the input that it was started with.
    await counter.start({ n: 0, to: 5 }, { key: 'counted' })
    await expect(counter.start({ n: 4, to: 5 }, { key: 'counted' })).rejects.toMatchObject({
      code: 'key-reused',
    })
  })

  it('keeps signals that were not received, in their order, and loses none', async () => {
    const pawl = app.pawl()
    const total = 40
    const inbox = pawl.workflow('inbox', async (execution, seen: number[]) => {
      const n = (await execution.signal<number>('item')) as number
      const all = [...seen, n]
      return all.length < total ? execution.continueAs(all) : all
    })
    await pawl.start()
    const handle = await inbox.start([])
    for (let n = 0; n < total; n++) await handle.signal('item', n)
    expect(await handle.result()).toEqual(Array.from({ length: total }, (_, n) => n))
  })

  it('keeps the place in the queue, the children and their results', async () => {
    const pawl = app.pawl()
    const queue = pawl.queue('lives', { concurrency: 1, maxDepth: 10 })
    const order: string[] = []
    const child = pawl.workflow('kept child', () => 'from the first life')
    const long = pawl.workflow('long', { queue }, async (execution, round: number) => {
      await execution.step('round', () => void order.push(`round ${round}`))
      if (round === 0) await child.start(undefined, { key: 'of the first life' })
      if (round < 3) return execution.continueAs(round + 1)
      return child.handle('of the first life').result()
    })
    const other = pawl.workflow('other', { queue }, () => void order.push('other'))
    await pawl.start()
    const handle = await long.start(0)
    const after = await other.start(undefined)
    expect(await handle.result()).toBe('from the first life')
    await after.result()
    expect(order).toEqual(['round 0', 'round 1', 'round 2', 'round 3', 'other'])
    const { rows } = await database.pool.query(
      `select c.parent_life = p.created_at as follows from pawl.executions c
       join pawl.executions p on p.id = c.parent where c.id = $1`,
      [child.handle('of the first life').id],
    )
    expect(rows).toEqual([{ follows: true }])
    await waitFor('the counts', async () => {
      const counts = await database.pool.query(
        `select held, waiting, backlog from pawl.queues where name = 'lives'`,
      )
      return JSON.stringify(counts.rows) === '[{"held":0,"waiting":0,"backlog":0}]'
    })
  })

  it('keeps no result that the former life has in its journal', async () => {
    const pawl = app.pawl()
    const child = pawl.workflow('child of a round', (_, n: number) => n)
    const loop = pawl.workflow('loop', async (execution, n: number): Promise<number> => {
      await (await child.start(n, { key: `of round ${n}` })).result()
      await child.start(-n, { key: `unread in round ${n}` })
      return n < 3 ? execution.continueAs(n + 1) : n
    })
    await pawl.start()
    const handle = await loop.start(1)
    await handle.result()
    const { rows } = await database.pool.query(
      `select key, parent_life is not null as kept from pawl.executions
       where parent = $1 and key not like '%3' order by key`,
      [handle.id],
    )
    expect(rows).toEqual([
      { key: 'of round 1', kept: false },
      { key: 'of round 2', kept: false },
      { key: 'unread in round 1', kept: true },
      { key: 'unread in round 2', kept: true },
    ])
  })

  it('refuses what an attempt of the former life still does', async () => {
    const pawl = app.pawl()
    const late: unknown[] = []
    let release = () => {}
    const gate = new Promise<void>((resolve) => {
      release = resolve
    })
    const ran: string[] = []
    const job = pawl.workflow('stale', async (execution, life: number) => {
      if (life === 2) {
        await execution.step('second', () => void ran.push('second life'))
        await execution.signal('end')
        return 'ended'
      }
      gate
        .then(() => execution.step('stale', () => void ran.push('stale')))
        .then(
          (value) => late.push(value),
          (error) => late.push(error),
        )
      return execution.continueAs(2)
    })
    await pawl.start()
    const handle = await job.start(1)
    await waitFor('the second life', () => ran.length === 1)
    release()
    await handle.signal('end')
    expect(await handle.result()).toBe('ended')
    expect(ran).toEqual(['second life'])
    expect(await app.journal(handle.id)).not.toContain('step stale')
  })

  it('is refused to all but the current attempt of the owner', async () => {
    const { db, owner } = await openStore(database.url)
    const [own, other] = [owner, randomUUID()].map(
      (id) => new WorkflowStore(db, 'pawl', id, 15_000),
    )
    const started = await own!.start(newExecution({ runsHere: true }))
    if (started?.kind !== 'started') throw new Error('not started')
    const life = { ...started.ref, input: Buffer.from('2'), maxAttempts: 3, timeoutMs: null }
    expect(await other!.continueAs(life)).toBe('superseded')
    expect(await own!.continueAs({ ...life, attempt: 2 })).toBe('superseded')
    expect(await own!.continueAs({ ...life, incarnation: '1' })).toBe('superseded')
    expect(await own!.continueAs(life)).toBe('continued')
    expect(await own!.continueAs(life)).toBe('superseded')
  })

  it('validates the input; the code may catch that and go on', async () => {
    const pawl = app.pawl()
    const codes: unknown[] = []
    const job = pawl.workflow(
      'strict',
      { input: z.object({ n: z.number() }), retry: 1 },
      async (execution, { n }) => {
        if (n === 2) return 'second'
        const error = await execution.continueAs({ n: 'two' }).catch((thrown) => thrown)
        codes.push(error.code)
        const nested = await execution.step('outer', () =>
          execution.continueAs({ n: 2 }).catch((thrown) => thrown.code),
        )
        codes.push(nested)
        return execution.continueAs({ n: 2 })
      },
    )
    await pawl.start()
    const handle = await job.start({ n: 1 })
    expect(await handle.result()).toBe('second')
    expect(codes).toEqual(['input-invalid', 'step-nested'])
  })

  it('does not outrun a cancellation', async () => {
    const pawl = app.pawl()
    let rounds = 0
    const undone: number[] = []
    const endless = pawl.workflow('endless', async (execution, n: number): Promise<never> => {
      rounds++
      await execution.step('do', () => n, { compensate: () => void undone.push(n) })
      await execution.sleep(5)
      return execution.continueAs(n + 1)
    })
    await pawl.start()
    const handle = await endless.start(0, { key: randomUUID() })
    await waitFor('some rounds', () => rounds > 3)
    await handle.cancel()
    await app.until(handle.id, 'cancelled')
    // Only of the last life.
    expect(undone.length).toBeLessThanOrEqual(1)
    const before = rounds
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(rounds).toBe(before)
  })

  it('continues after the process was killed at any moment', async () => {
    const total = 30
    let lives = 0
    const define = (pawl: ReturnType<typeof app.pawl>) =>
      pawl.workflow('hunted', async (execution, { n, sum }: { n: number; sum: number }) => {
        const next = await execution.step('sum', () => sum + n)
        lives++
        return n < total ? execution.continueAs({ n: n + 1, sum: next }) : next
      })
    const pawls = [app.pawl(), app.pawl(), app.pawl()]
    const defined = pawls.map(define)
    await Promise.all(pawls.map((pawl) => pawl.start()))
    const handle = await defined[0]!.start({ n: 1, sum: 0 })
    // Two processes stop on the way; their attempts are given up wherever they are.
    await waitFor('some lives', () => lives > 5)
    await pawls[0]!.stop()
    await waitFor('more lives', () => lives > 12)
    await pawls[1]!.stop()
    expect(await defined[2]!.handle(handle.key).result()).toBe((total * (total + 1)) / 2)
  })
})
