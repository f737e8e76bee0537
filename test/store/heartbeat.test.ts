import { randomUUID } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import type { Database, Query } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { ExecutionStore } from '../../lib/store/execution-store.ts'
import { Heartbeat } from '../../lib/store/heartbeat.ts'
import { WakeupStore } from '../../lib/store/wakeup-store.ts'
import { WorkflowStore } from '../../lib/store/workflow-store.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, newExecution } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const real = new NodePostgres(database.pool, 5000, false)
const beating: Heartbeat[] = []

async function start(
  options: { id?: string; instance?: string; timeoutMs?: number } = {},
  db: Database = real,
): Promise<{ id: string; heartbeat: Heartbeat }> {
  const { id = randomUUID(), instance = null, timeoutMs = 60_000 } = options
  const heartbeat = new Heartbeat(db, 'pawl', { id, instance, version: '1.2.3', timeoutMs }, silent)
  await heartbeat.start()
  beating.push(heartbeat)
  return { id, heartbeat }
}

const row = async (id: string) => {
  const sql = 'select *, expires_at > pawl.now() as alive from pawl.processes where id = $1'
  return (await database.pool.query(sql, [id])).rows[0]
}

/** A database through which the test sees, and holds back, what a process sends. */
function watched(onQuery: (sql: string) => Promise<unknown> | undefined): Database {
  const query: Query = async (sql, values) => {
    await onQuery(sql)
    return real.query(sql, values)
  }
  return Object.assign(Object.create(real), { query, urgent: query })
}

afterEach(async () => {
  await Promise.all(beating.splice(0).map((heartbeat) => heartbeat.stop()))
})

describe('a process', () => {
  it('says who it is, and is gone when it stops', async () => {
    const { id, heartbeat } = await start({ instance: 'web-1' })
    expect(await row(id)).toMatchObject({
      instance: 'web-1',
      pid: process.pid,
      version: '1.2.3',
      alive: true,
    })
    await heartbeat.stop()
    expect(await row(id)).toBeUndefined()
  })

  it('says which handlers of queues it runs, again if that did not arrive', async () => {
    let isAway = true
    const db = watched((sql) =>
      isAway && sql.includes('set queues =') ? Promise.reject(new Error('away')) : undefined,
    )
    const { id, heartbeat } = await start({}, db)
    const queues = { q: ['workflow job'] }
    await expect(heartbeat.announceQueues(queues)).rejects.toThrow('away')
    isAway = false
    await heartbeat.announceQueues(queues)
    expect(await row(id)).toMatchObject({ queues })
  })

  it('lives for as long as its heart beats', async () => {
    const { id } = await start({ timeoutMs: 3000 })
    const { heartbeat: first } = await row(id)
    const later = await waitFor('a heartbeat', async () => {
      const now = await row(id)
      return now.heartbeat > first && now
    })
    expect(later.alive).toBe(true)
  })

  it('retires its predecessor of the same instance name, and nobody else', async () => {
    const [old, other, nameless] = await Promise.all([
      start({ instance: 'web-1' }),
      start({ instance: 'web-2' }),
      start(),
    ])
    const { id } = await start({ instance: 'web-1' })
    expect(await row(old.id)).toBeUndefined()
    for (const alive of [id, other.id, nameless.id]) expect((await row(alive)).alive).toBe(true)
  })

  it('makes due at once what its predecessor was running, however it had begun, and nothing else', async () => {
    const [old, other] = await Promise.all([
      start({ instance: 'web-1', timeoutMs: 3_600_000 }),
      start({ instance: 'web-2', timeoutMs: 3_600_000 }),
    ])
    const recovery = { input: Buffer.from('1'), maxAttempts: 9 }
    const claim = () => claimOf(undefined, { recovery })
    const sideOf = (owner: string) => {
      const store = new ExecutionStore(real, 'pawl', owner, 3_600_000)
      const workflows = new WorkflowStore(real, 'pawl', owner, 3_600_000)
      return { store, workflows, db: real, owner, live: async () => {} }
    }
    const [side, neighbour] = [sideOf(old.id), sideOf(other.id)]
    const claimed = await claimNew(side, claim())
    const leased = await claimNew(side, claim())
    await side.store.release(leased, 'released', { delayMs: 0 })
    await new WakeupStore(real, 'pawl', old.id, 3_600_000).leaseDue(['requests'], 9, [])
    // Clients resume these before a worker would.
    const [released, parked] = [await claimNew(side, claim()), await claimNew(side, claim())]
    await side.store.release(released, 'released', { delayMs: 86_400_000 })
    await side.store.release(parked, 'parked')
    for (const { id } of [released, parked])
      await side.store.takeOver(id, (await side.store.read(id))!)
    const started = newExecution({ runsHere: true, priority: 9 })
    await side.workflows.start(started)

    await neighbour.workflows.start(newExecution({ runsHere: true }))
    await claimNew(neighbour, claim())
    await side.workflows.start(newExecution({ delayMs: 60_000 }))
    await side.store.complete(completionOf(await claimNew(side, claim()), 'done'))

    const { id } = await start({ instance: 'web-1' })
    const handlers = ['requests', started.handler]
    const due = await new WakeupStore(real, 'pawl', id, 15_000).leaseDue(handlers, 99, [])
    const ids = [claimed, leased, released, parked, started].map((execution) => execution.id)
    expect(due.leased.map((execution) => execution.id).sort()).toEqual(ids.sort())
    await database.pool.query('truncate pawl.executions, pawl.wakeups')
  })

  it('that others considered dead registers again, and retires nobody', async () => {
    const { id } = await start({ instance: 'web-1', timeoutMs: 300 })
    const successor = await start({ instance: 'web-1' })
    await waitFor('its return', () => row(id))
    expect((await row(id)).instance).toBeNull()
    expect((await row(successor.id)).alive).toBe(true)
  })

  it('stays alive when one heartbeat gets no answer', async () => {
    let beats = 0
    const db = watched((sql) => {
      const lost = sql.includes('set heartbeat') && sql.includes('returning p.id') && beats++ === 0
      return lost ? new Promise(() => {}) : undefined
    })
    const { id } = await start({ timeoutMs: 3000 }, db)
    await waitFor('a second heartbeat', () => beats >= 2)
    await waitFor('life', async () => (await row(id)).heartbeat > (await row(id)).started_at)
    expect((await row(id)).alive).toBe(true)
  })

  it('registers although processes that start with it conflict under serializable', async () => {
    let sent = 0
    const db = watched((sql) => {
      if (!sql.includes('registered as') || ++sent > 2) return undefined
      return database.pool.query(
        `do $$ begin raise exception 'conflict' using errcode = 'serialization_failure'; end $$`,
      )
    })
    const { id } = await start({ instance: 'web-1' }, db)
    expect(sent).toBe(3)
    expect((await row(id)).alive).toBe(true)
  })

  it('does not queue heartbeats for a database that does not answer', async () => {
    let beats = 0
    const db = watched((sql) => {
      if (!sql.includes('returning p.id')) return undefined
      beats++
      return new Promise(() => {})
    })
    await start({ timeoutMs: 60 }, db)
    await waitFor('three heartbeats', () => beats >= 3)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(beats).toBe(3)
  })

  it('that stops while it returns to life stays dead', async () => {
    let letGo: (() => void) | undefined
    let returning = false
    const db = watched((sql) => {
      if (!returning || !sql.includes('registered as')) return undefined
      return new Promise<void>((resolve) => {
        letGo = resolve
      })
    })
    const { id, heartbeat } = await start({ timeoutMs: 100 }, db)
    returning = true
    await database.pool.query('delete from pawl.processes where id = $1', [id])
    await waitFor('its return', () => letGo)
    await heartbeat.stop()
    letGo?.()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await row(id)).toBeUndefined()
  })
})
