import { beforeEach, describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { hang, withRecovery } from '../helpers/recovery.ts'
import { freshKey, request } from '../helpers/request.ts'
import { startTap } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const { start, bury, state } = withRecovery(database)

beforeEach(() => database.pool.query('truncate pawl.executions, pawl.wakeups'))

/** The key of a request whose process has died. */
async function interrupted(): Promise<string> {
  const key = freshKey()
  const victim = await start({ handler: hang })
  request(`${victim.url}/`, { key }).catch(() => {})
  await waitFor('the claim', async () => (await state(key))?.status === 'running')
  await bury()
  return key
}

const isTake = (statement: string) => statement.includes('judged as')
const isJournal = (statement: string) => statement.includes('s.position, s.completed_at')

describe('An execution that a worker goes on with', () => {
  it.each([
    ['while the worker is told that it has it', isTake],
    ['while the worker reads its journal', isJournal],
  ])('runs once if its client retries %s', async (_, is) => {
    const key = await interrupted()
    let held: (() => void) | undefined
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (!held && is(statement)) held = forward
        else forward()
      },
    })
    const runs: number[] = []
    let answer = () => {}
    const app = await start({
      url: tap.url,
      route: { wait: '20s' },
      handler: async (execution, _req, res) => {
        runs.push(execution.attempt)
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        res.status(201).json(runs)
      },
    })
    await waitFor('the worker', () => held)
    const retry = request(`${app.url}/`, { key })
    // Long enough for the retry to ask the database what there is.
    await new Promise((resolve) => setTimeout(resolve, 300))
    held?.()
    await waitFor('a run', () => runs.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(runs).toEqual([2])
    answer()
    expect((await retry).json).toEqual([2])
    await waitFor('the outcome', async () => (await state(key)).status === 'done')
    await app.close()
    await tap.close()
  })

  it('and that its client has finished meanwhile: the news of it is old, and nothing runs', async () => {
    const key = await interrupted()
    let held: (() => void) | undefined
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (!held && isTake(statement)) held = forward
        else forward()
      },
    })
    const runs: number[] = []
    const app = await start({
      url: tap.url,
      handler: (execution, _req, res) => {
        runs.push(execution.attempt)
        res.sendStatus(201)
      },
    })
    await waitFor('the worker', () => held)
    expect((await request(`${app.url}/`, { key })).status).toBe(201)
    held?.()
    await app.close() // Waits for what the worker has.
    expect(runs).toEqual([2])
    await tap.close()
  })

  it.each([
    ['that it was given to it', isTake, 0],
    ['of its journal', isJournal, 2500],
  ])(
    'is not forgotten if the news %s does not reach the worker',
    async (_, is, ms) => {
      const key = await interrupted()
      let since = Number.POSITIVE_INFINITY
      const tap = await startTap(database.url, {
        onReply: ({ statement, forward, destroy }) => {
          if (!is(statement) || Date.now() - since > ms) return forward()
          since = Math.min(since, Date.now())
          destroy()
        },
      })
      const runs: number[] = []
      const app = await start({
        url: tap.url,
        pawl: { processTimeout: '1s', storeTimeout: '1s' },
        handler: (execution, _req, res) => {
          runs.push(execution.attempt)
          res.sendStatus(201)
        },
      })
      await waitFor('the outcome', async () => (await state(key)).status === 'done')
      expect(since).toBeLessThan(Date.now())
      expect(runs).toHaveLength(1)
      await app.close()
      await tap.close()
    },
    90_000,
  )

  it('that is running here is left alone, however long it takes', async () => {
    const runs: number[] = []
    const key = freshKey()
    let answer = () => {}
    const app = await start({
      pawl: { processTimeout: '1s' },
      handler: async (execution, _req, res) => {
        runs.push(execution.attempt)
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        res.sendStatus(201)
      },
    })
    const first = request(`${app.url}/`, { key })
    await waitFor('the claim', async () => await state(key))
    await database.pool.query(`update pawl.wakeups set due_at = 'epoch'`)
    const other = await start({ handler: hang })
    await waitFor('the other to look', async () => (await state(key)).due_at > new Date(1))
    await new Promise((resolve) => setTimeout(resolve, 2500))
    expect([runs, await state(key)]).toMatchObject([[1], { status: 'running', attempt: 1 }])
    answer()
    expect((await first).status).toBe(201)
    await other.close()
  })
})

describe('A process that comes back', () => {
  it('under its instance name goes on at once with what it was doing', async () => {
    const key = freshKey()
    const pawl = { processTimeout: '1 hour', instance: 'web-1' } as const
    const victim = await start({ handler: hang, pawl })
    request(`${victim.url}/`, { key }).catch(() => {})
    await waitFor('the claim', async () => (await state(key))?.status === 'running')
    const reborn = await start({
      handler: (execution, _req, res) => res.status(201).json(execution.attempt),
      pawl,
    })
    await waitFor('the outcome', async () => (await state(key)).status === 'done')
    expect((await request(`${reborn.url}/`, { key })).json).toBe(2)
  })
})

describe('stop()', () => {
  it('while a recovered request does not end: it is given back, and another goes on soon', async () => {
    const key = await interrupted()
    let reached = false
    const stuck = await start({
      handler: () => {
        reached = true
        return hang()
      },
    })
    await waitFor('the handler', () => reached)
    await stuck.pawl.stop()
    const { status, attempt, due_at } = await state(key)
    expect([status, attempt]).toEqual(['released', 2])
    expect(due_at.getTime()).toBeLessThan(Date.now() + 5000)
    await start({ handler: (_execution, _req, res) => res.sendStatus(201) })
    await waitFor('the outcome', async () => (await state(key)).status === 'done')
    expect(await state(key)).toMatchObject({ attempt: 3 })
  })

  it.each([
    ['a claim', (s: string) => s.includes('on conflict (id) do nothing'), false],
    ['what a worker takes', isTake, true],
    ['the journal of what a worker took', isJournal, true],
  ])(
    'while %s is on its way: it runs to its end here, or is given back',
    async (_, is, recovers) => {
      const key = recovers ? await interrupted() : freshKey()
      let held: (() => void) | undefined
      const tap = await startTap(database.url, {
        onReply: ({ statement, forward }) => {
          if (!held && is(statement)) held = forward
          else forward()
        },
      })
      let runs = 0
      let stopped = false
      const app = await start({
        url: tap.url,
        pawl: { drainTimeout: '10s' },
        route: { recover: recovers },
        handler: (_execution, _req, res) => {
          runs++
          expect(stopped).toBe(false)
          res.sendStatus(201)
        },
      })
      const client = recovers ? null : request(`${app.url}/`, { key })
      await waitFor('the statement', () => held)
      const stopping = app.pawl.stop().then(() => {
        stopped = true
      })
      await new Promise((resolve) => setTimeout(resolve, 100))
      held?.()
      await stopping
      if (client) expect((await client).status).toBe(201)
      expect([runs, (await state(key)).status]).toEqual([1, 'done'])
      await app.close()
      await tap.close()
    },
  )

  it('without the time to wait: a claim that comes too late is undone, and nothing runs', async () => {
    const key = freshKey()
    let held: (() => void) | undefined
    const tap = await startTap(database.url, {
      onReply: ({ statement, forward }) => {
        if (!held && statement.includes('on conflict (id) do nothing')) held = forward
        else forward()
      },
    })
    let runs = 0
    const app = await start({
      url: tap.url,
      pawl: { storeTimeout: '1s' },
      route: { recover: false },
      handler: (_execution, _req, res) => {
        runs++
        res.sendStatus(201)
      },
    })
    const client = request(`${app.url}/`, { key })
    await waitFor('the claim', () => held)
    await app.pawl.stop()
    held?.()
    expect((await client).status).toBe(503)
    expect(runs).toBe(0)
    await app.close()
    await tap.close()
  })
})
