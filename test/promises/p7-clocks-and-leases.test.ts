import { beforeAll, describe, expect, it } from 'vitest'
import { type ChildApp, spawnApp } from '../helpers/child.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { withRuns } from '../helpers/runs.ts'
import { waitFor } from '../helpers/wait-for.ts'

describe('P7 Clocks and leases decide only who should work now, never what is true', () => {
  const database = withDatabase()
  withRuns(database)

  const env = {
    get DATABASE_URL() {
      return database.url
    },
    PAWL: JSON.stringify({ processTimeout: '1s' }),
    ROUTE: JSON.stringify({ resumable: true, wait: '20s' }),
  }
  const started = (key: string, attempt: number) =>
    waitFor(`attempt ${attempt}`, async () => {
      const sql = 'select 1 from runs where key = $1 and attempt = $2'
      return (await database.pool.query(sql, [key, attempt])).rows[0]
    })
  const row = async (key: string) =>
    (await database.pool.query('select * from pawl.execution_log where key = $1', [key])).rows[0]

  /** Process B, which never dies. */
  let heir: ChildApp
  beforeAll(async () => {
    heir = await spawnApp('orders.ts', { ...env, DATABASE_URL: env.DATABASE_URL })
  })

  /** Process A stops in the middle of its handler, and B takes the execution over. */
  async function takeover(body: { freeze: number[] }) {
    const zombie = await spawnApp('orders.ts', { ...env, DATABASE_URL: env.DATABASE_URL })
    const key = freshKey()
    const first = request(`${zombie.url}/orders`, { key, body })
    await started(key, 1)
    const second = request(`${heir.url}/orders`, { key, body })
    return { key, zombie, first, second }
  }

  it('a zombie that wakes after takeover changes nothing and answers what is recorded', async () => {
    const { key, zombie, first, second } = await takeover({ freeze: [1] })
    const fromHeir = await second
    expect(fromHeir.status).toBe(201)
    expect(fromHeir.json.attempt).toBe(2)
    const before = await row(key)
    await zombie.kill('SIGCONT')
    const fromZombie = await first
    expect(fromZombie.status).toBe(201)
    expect(fromZombie.body).toEqual(fromHeir.body)
    expect(fromZombie.headers['idempotent-replayed']).toBe('true')
    const { duration: _, owner_alive: __, ...after } = await row(key)
    expect(before).toMatchObject(after)
    const retry = await request(`${zombie.url}/orders`, { key, body: { freeze: [1] } })
    expect(retry.body).toEqual(fromHeir.body)
  })

  it('a zombie that succeeds first is the truth, and its heir adopts it', async () => {
    const { key, zombie, first, second } = await takeover({ freeze: [1, 2] })
    await started(key, 2)
    await zombie.kill('SIGCONT')
    const fromZombie = await first
    expect(fromZombie.json.attempt).toBe(1)
    await heir.kill('SIGCONT')
    const fromHeir = await second
    expect(fromHeir.body).toEqual(fromZombie.body)
    expect(fromHeir.headers['idempotent-replayed']).toBe('true')
    expect((await row(key)).response_body).toBe(fromZombie.text)
  })

  it('a zombie that fails cannot fail the execution that its heir is working on', async () => {
    const databaseUrl = env.DATABASE_URL
    const route = (options: object) => JSON.stringify({ wait: '20s', ...options })
    // The zombie's route stores its 5xx; the heir's may take over.
    const [zombie, heir] = await Promise.all([
      spawnApp('orders.ts', {
        ...env,
        DATABASE_URL: databaseUrl,
        ROUTE: route({ resumable: false }),
      }),
      spawnApp('orders.ts', {
        ...env,
        DATABASE_URL: databaseUrl,
        ROUTE: route({ resumable: true }),
      }),
    ])
    const key = freshKey()
    const body = { freeze: [1, 2], status: 500 }
    const first = request(`${zombie.url}/orders`, { key, body })
    await started(key, 1)
    const second = request(`${heir.url}/orders`, { key, body })
    await started(key, 2)
    await zombie.kill('SIGCONT')
    const fromZombie = await first
    expect(fromZombie.status).toBe(409)
    expect(fromZombie.json.type).toBe('urn:pawl:problem:in-progress')
    expect(['running', 'interrupted']).toContain((await row(key)).status)
    await heir.kill('SIGCONT')
    expect((await second).status).toBe(500)
    expect(await row(key)).toMatchObject({ status: 'released', attempt: 2, response_status: null })
  })

  it('an event loop that stalls past its heartbeat is a zombie like any other', async () => {
    const stalled = await spawnApp('orders.ts', { ...env, DATABASE_URL: env.DATABASE_URL })
    const key = freshKey()
    const body = { stall: 1, stallMs: 2500 }
    const first = request(`${stalled.url}/orders`, { key, body })
    await started(key, 1)
    const second = await request(`${heir.url}/orders`, { key, body })
    expect(second.json.attempt).toBe(2)
    expect((await first).body).toEqual(second.body)
    // It is alive after all, and says so.
    const alive = await waitFor('its heartbeat', async () => {
      const sql = 'select expires_at > pawl.now() as alive from pawl.processes where pid = $1'
      return (await database.pool.query(sql, [stalled.pid])).rows[0]?.alive
    })
    expect(alive).toBe(true)
  })
})
