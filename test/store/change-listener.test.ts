import pg from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { ChangeListener, type PollingIntervals } from '../../lib/store/change-listener.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { PgArray } from '../../lib/store/database/pg-array.ts'
import { executionStatements } from '../../lib/store/sql/execution-statements.ts'
import { withDatabase } from '../helpers/database.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const sender = new NodePostgres(database.pool, 5000, false)
const closing: (() => Promise<unknown>)[] = []

/** Longer than a test: only a notification ends the wait. */
const NO_POLLING: PollingIntervals = { firstMs: 3_600_000, maxMs: 3_600_000 }

function open(max = 5, polling?: PollingIntervals): { watch: ChangeListener; pool: pg.Pool } {
  const pool = new pg.Pool({ connectionString: database.url, max })
  const watch = new ChangeListener(new NodePostgres(pool, 5000, false), 'pawl', polling)
  closing.push(
    () => watch.close(),
    () => pool.end(),
  )
  return { watch, pool }
}

const notify = (...ids: string[]) =>
  sender.query(executionStatements('"pawl"').notify, ['pawl', new PgArray('text', ids)])

const listeners = async () =>
  (
    await database.pool.query(
      `select pid from pg_stat_activity
       where datname = current_database() and query = 'listen "pawl"' and state = 'idle'`,
    )
  ).rows.map((row) => row.pid as number)

/** Waits for an id, and tells how often it looked and how long after the change it was found. */
function waiter(watch: ChangeListener, id: string, timeoutMs = 10_000) {
  const state = { changed: 0, looks: 0 }
  const look = async () => {
    state.looks++
    return state.changed ? performance.now() - state.changed : null
  }
  return { state, found: watch.waitFor(id, look, timeoutMs) }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

afterEach(async () => {
  for (const close of closing.splice(0)) await close()
  await waitFor('silence', async () => (await listeners()).length === 0)
})

describe('waiting for an execution', () => {
  it('ends when it is notified, and only for the one that is meant', async () => {
    const { watch } = open(5, NO_POLLING)
    const ids = Array.from({ length: 10 }, (_, n) => `id ${n}`)
    const waiters = ids.map((id) => waiter(watch, id, 60_000))
    const other = waiter(watch, 'other', 60_000)
    // At first, and again once the connection listens.
    const looks = () => [other, ...waiters].map(({ state }) => state.looks)
    await waitFor('LISTEN', () => looks().every((count) => count === 2))
    for (const { state } of [other, ...waiters]) state.changed = performance.now()
    await notify(...ids)
    await Promise.all(waiters.map(({ found }) => found))
    expect(looks()).toEqual([2, ...ids.map(() => 3)])
    await notify('other')
    expect(await other.found).not.toBeNull()
  })

  it('needs no LISTEN: where the pool is shared and has no connection to give away, polling finds it', async () => {
    const { watch } = open(1)
    const { state, found } = waiter(watch, 'polled')
    await sleep(200)
    expect(await listeners()).toEqual([])
    state.changed = performance.now()
    expect(await found).not.toBeNull()
  })

  it('does not wait for LISTEN in a pool that is busy', async () => {
    const { watch, pool } = open(3)
    const busy = await Promise.all([pool.connect(), pool.connect(), pool.connect()])
    const { state, found } = waiter(watch, 'busy')
    state.changed = performance.now()
    expect(await found).not.toBeNull()
    for (const client of busy) client.release()
  })

  it('goes on by polling when the connection that listens is killed, and listens again next time', async () => {
    const { watch } = open()
    const { state, found } = waiter(watch, 'killed')
    const pid = await waitFor('LISTEN', async () => (await listeners())[0])
    await database.pool.query('select pg_terminate_backend($1)', [pid])
    await waitFor('its end', async () => !(await listeners()).includes(pid))
    // Once the process has noticed, the next waiter makes it listen again.
    await waitFor('another LISTEN', async () => {
      const again = waiter(watch, 'another')
      again.state.changed = performance.now()
      expect(await again.found).not.toBeNull()
      return (await listeners())[0]
    })
    state.changed = performance.now()
    expect(await found).not.toBeNull()
  })

  it('listens on one connection however many wait, and on none when nobody does', async () => {
    const { watch } = open()
    const waiters = Array.from({ length: 20 }, (_, n) => waiter(watch, `id ${n % 3}`))
    await waitFor('LISTEN', async () => (await listeners())[0])
    expect(await listeners()).toHaveLength(1)
    for (const { state } of waiters) state.changed = performance.now()
    await Promise.all(waiters.map(({ found }) => found))
    await waitFor('silence', async () => (await listeners()).length === 0)
  })

  it('ends with null when the time is up', async () => {
    const { watch } = open()
    expect(await watch.waitFor('never', async () => null, 200)).toBeNull()
  })

  it('ends when the caller has gone', async () => {
    const { watch } = open()
    const controller = new AbortController()
    const waiting = watch.waitFor('gone', async () => null, 20_000, controller.signal)
    await sleep(50)
    controller.abort()
    expect(await waiting).toBeNull()
  })

  it('passes on what goes wrong while looking, and stops listening', async () => {
    const { watch } = open()
    const failing = watch.waitFor('failing', () => Promise.reject(new Error('store away')), 5000)
    await expect(failing).rejects.toThrow('store away')
    await waitFor('silence', async () => (await listeners()).length === 0)
  })
})
