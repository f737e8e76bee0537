import { describe, expect, it } from 'vitest'
import { spawnApp } from '../../helpers/child.ts'
import { withDatabase } from '../../helpers/database.ts'
import { openEvents } from '../../helpers/events.ts'
import { freshKey, request } from '../../helpers/request.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()

describe('P5 A process that dies after its 202', () => {
  it('is finished by another, whose status endpoint shows the final response', async () => {
    await database.pool.query('create table runs (step text, pid int)')
    const lock = await database.pool.connect()
    await lock.query('select pg_advisory_lock(1)')
    const env = { DATABASE_URL: database.url }
    const [victim, heir] = await Promise.all([
      spawnApp('operations.ts', env),
      spawnApp('operations.ts', env),
    ])
    const key = freshKey()
    const headers = { 'X-Tenant': 'ann' }
    const first = await request(`${victim.url}/orders`, { key, headers, body: { item: 'book' } })
    expect(first.status).toBe(202)
    const status = heir.url + first.headers.location
    const get = (more = {}) => request(status, { method: 'GET', headers: { ...headers, ...more } })
    expect((await get()).json).toMatchObject({ status: 'running', attempt: 1 })
    await waitFor('the first step', async () => {
      const { rows } = await database.pool.query('select count(*)::int as n from pawl.step_log')
      return rows[0].n > 0
    })
    const events = await openEvents(status, headers)
    await victim.kill()
    await lock.query('select pg_advisory_unlock(1)')
    lock.release()

    const final = await waitFor('the final response', async () => {
      const answer = await get({ Prefer: 'wait=5' })
      return answer.status === 202 ? null : answer
    })
    expect(final.status).toBe(201)
    expect(final.json).toEqual({
      item: 'book',
      charge: { step: 'charge', pid: victim.pid },
      ship: { step: 'ship', pid: heir.pid },
      attempt: 2,
    })
    const told = await events.rest()
    expect(told.at(-1)).toMatchObject({ event: 'done', data: { response: { status: 201 } } })
    // The retry of the client gets the same, and nothing ran twice.
    const retry = await request(`${heir.url}/orders`, { key, headers, body: { item: 'book' } })
    expect(retry.body).toEqual(final.body)
    expect(retry.headers['idempotent-replayed']).toBe('true')
    const { rows } = await database.pool.query('select step, pid from runs order by step')
    expect(rows).toEqual([
      { step: 'charge', pid: victim.pid },
      { step: 'ship', pid: heir.pid },
    ])
  })
})
