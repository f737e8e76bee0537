import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { withHappened } from '../helpers/happened.ts'
import { cases, variants } from '../helpers/proof.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const happened = withHappened(database)
const env = () => ({
  DATABASE_URL: database.url,
  PAWL: JSON.stringify({ processTimeout: '1s' }),
  ROUTE: JSON.stringify({ wait: '20s' }),
})
const headers = { Authorization: 'ann' }
const post = (app: ChildApp, key: string, body: object) =>
  request(`${app.url}/orders`, { key, body, headers })

describe('P3 A recorded step never runs again, and P5 nothing is abandoned', () => {
  let survivor: ChildApp
  beforeAll(async () => {
    survivor = await spawnApp('journal.ts', env())
  })
  afterAll(() => survivor.kill())

  it.each(
    variants(['after step', 'in transaction', 'after transaction', 'end'], ['in transaction']),
  )('a process killed %s: the retry resumes behind the last step', async (dieIn) => {
    const victim = await spawnApp('journal.ts', env())
    const key = freshKey()
    const body = { dieIn }
    await expect(post(victim, key, body)).rejects.toThrow()
    const before = await happened.steps(key)
    const answer = await post(survivor, key, body)
    expect(answer.status).toBe(201)
    expect(answer.json.isDate).toBe(true)
    expect(await happened.counts(key)).toEqual({ run: 2, charge: 1, notify: 1, order: 1 })
    // What the first attempt recorded is what the second saw.
    const after = await happened.steps(key)
    expect(after.slice(0, before.length)).toEqual(before)
    expect(answer.json.payment).toBe(before[0].output.id)
    expect((await post(survivor, key, body)).body).toEqual(answer.body)
  })

  it('killed inside its first step: nobody can know what it did, and nothing runs', async () => {
    const victim = await spawnApp('journal.ts', env())
    const key = freshKey()
    const body = { dieIn: 'after charge' }
    await expect(post(victim, key, body)).rejects.toThrow()
    await waitFor('the death to be noticed', async () => {
      return (await happened.status(key)) === 'interrupted'
    })
    const answer = await post(survivor, key, body)
    expect(answer.status).toBe(409)
    expect(answer.json.type).toBe('urn:pawl:problem:outcome-unknown')
    expect(await happened.counts(key)).toEqual({ run: 1, charge: 1, order: 0 })
  })

  it('a 5xx after a step is sent and not stored, and the retry resumes', async () => {
    const key = freshKey()
    const body = { fail: [1, 2] }
    const statuses = []
    for (let i = 0; i < 4; i++) statuses.push((await post(survivor, key, body)).status)
    expect(statuses).toEqual([500, 500, 201, 201])
    expect(await happened.counts(key)).toEqual({ run: 3, charge: 1, notify: 1, order: 1 })
  })

  it('two processes that race on one execution end with one journal', async () => {
    const victim = await spawnApp('journal.ts', env())
    const key = freshKey()
    const body = { waitIn: 'in transaction', ms: 4000 }
    const first = post(victim, key, body)
    await waitFor('the transaction', async () => (await happened.steps(key)).length === 1)
    // Not dead, only asleep for longer than its heartbeat may be away.
    victim.process.kill('SIGSTOP')
    const second = await post(survivor, key, body)
    expect(second.status).toBe(201)
    victim.process.kill('SIGCONT')
    const zombie = await first
    expect(zombie.body).toEqual(second.body)
    expect(await happened.counts(key)).toEqual({ run: 2, charge: 1, notify: 1, order: 1 })
    expect((await happened.steps(key)).map(({ name }) => name)).toEqual([
      'charge',
      'record',
      'notify',
    ])
    await victim.kill()
  })
})

describe('P5 without the client', () => {
  const recovering = (more: object = {}) => ({
    ...env(),
    ROUTE: JSON.stringify({ wait: '20s', recover: true, ...more }),
  })

  it('a request whose process and client are gone is finished by one of the others', async () => {
    const victim = await spawnApp('journal.ts', recovering())
    const others = await Promise.all(
      Array.from({ length: cases(1, { proof: 2 }) }, () => spawnApp('journal.ts', recovering())),
    )
    const key = freshKey()
    const body = { dieIn: 'after charge' }
    await expect(post(victim, key, body)).rejects.toThrow()
    await waitFor('the outcome', async () => (await happened.status(key)) === 'done')
    // In its first step, which is run again with the same key for the provider.
    expect(await happened.counts(key)).toEqual({ run: 2, charge: 2, notify: 1, order: 1 })
    const answer = await post(others[0]!, key, body)
    expect([answer.status, answer.headers['idempotent-replayed']]).toEqual([201, 'true'])
    const { rows } = await database.pool.query(
      `select convert_from(input, 'UTF8') as input from pawl.executions where key = $1`,
      [key],
    )
    expect(rows[0].input).toContain(key)
    expect(rows[0].input).not.toMatch(/ann|authorization/i)
    expect((await database.pool.query('select from pawl.wakeups')).rows).toEqual([])
    await Promise.all(others.map((app) => app.kill()))
  })

  it('one that kills each process it meets is parked, shown, and can be freed', async () => {
    const key = freshKey()
    const body = { dieIn: 'start', dieAttempt: 2 }
    const route = recovering({ recover: { attempts: 2 } })
    const victim = await spawnApp('journal.ts', route)
    // The first attempt fails, the second (a worker's) kills its process.
    expect((await post(victim, key, { ...body, fail: [1] })).status).toBe(500)
    await victim.exited
    expect(await happened.status(key)).not.toBe('done')
    const next = await spawnApp('journal.ts', route)
    await waitFor('parking', async () => (await happened.status(key)) === 'parked')
    expect(await happened.counts(key)).toMatchObject({ run: 2, charge: 1, order: 1 })
    // A retry of the client goes on.
    const answer = await post(next, key, { ...body, fail: [1] })
    expect(answer.status).toBe(201)
    expect(await happened.counts(key)).toEqual({ run: 3, charge: 1, notify: 1, order: 1 })
    await next.kill()
  })
})
