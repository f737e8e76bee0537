import { randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Attempt } from '../../lib/engine/attempt.ts'
import { withDatabase } from '../helpers/database.ts'
import {
  attemptOf,
  call,
  type Fault,
  outcome,
  startProcess as start,
  type TestProcess,
} from '../helpers/engine.ts'
import { freshKey } from '../helpers/request.ts'
import { isClaim, isCompletion } from '../helpers/tap.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const startProcess = (fault?: Fault, storeTimeoutMs = 10_000) =>
  start(database.pool, { ...(fault && { fault }), storeTimeoutMs })

describe('Engine', () => {
  let here: TestProcess
  let there: TestProcess

  beforeEach(async () => {
    here = await startProcess()
    there = await startProcess()
  })

  it('of many concurrent calls in one process one runs, and the others get its outcome', async () => {
    const key = freshKey()
    const begun = Array.from({ length: 50 }, () => here.engine.begin(call(key, { waitMs: 5000 })))
    const attempt = attemptOf(await Promise.race(begun))
    await attempt.complete(outcome('once'), 60_000, false)
    const kinds = (await Promise.all(begun)).map((result) => result.kind)
    expect(kinds.filter((kind) => kind === 'run')).toHaveLength(1)
    expect(kinds.filter((kind) => kind === 'replay')).toHaveLength(49)
  })

  it('a wrong request that comes first does not refuse the right one that joins its question', async () => {
    const key = freshKey()
    await attemptOf(await here.engine.begin(call(key))).complete(outcome('right'), 60_000, false)
    const wrong = there.engine.begin(call(key, { print: randomBytes(33) }))
    const right = there.engine.begin(call(key))
    expect((await wrong).kind).toBe('mismatch')
    expect((await right).kind).toBe('replay')
  })

  it('a waiting call runs when the attempt it waits for is given back', async () => {
    const key = freshKey()
    const first = attemptOf(await here.engine.begin(call(key)))
    const waiting = [here, there].map(({ engine }) => engine.begin(call(key, { waitMs: 5000 })))
    await first.release('released')
    const second = attemptOf(await Promise.race(waiting))
    expect(second.execution.attempt).toBe(2)
    await second.complete(outcome('second'), 60_000, false)
    const kinds = (await Promise.all(waiting)).map((result) => result.kind).sort()
    expect(kinds).toEqual(['replay', 'run'])
  })

  it('a waiting call of another process is notified of the outcome, and does not poll for it', async () => {
    const polling = { firstMs: 3_600_000, maxMs: 3_600_000 }
    const waiter = await start(database.pool, { polling })
    const key = freshKey()
    const attempt = attemptOf(await here.engine.begin(call(key)))
    const waiting = waiter.engine.begin(call(key, { waitMs: 60_000 }))
    const sql = `select from pg_stat_activity
      where datname = current_database() and query = 'listen "pawl"' and state = 'idle'`
    await waitFor('LISTEN', async () => (await database.pool.query(sql)).rowCount || null)
    await attempt.complete(outcome('once'), 60_000, false)
    expect((await waiting).kind).toBe('replay')
  })

  it('an execution that ended as unknown stays so, until a call may resume it', async () => {
    const key = freshKey()
    await attemptOf(await here.engine.begin(call(key))).release('unknown')
    expect((await here.engine.begin(call(key))).kind).toBe('unknown')
    expect((await there.engine.begin(call(key))).kind).toBe('unknown')
    const resumed = attemptOf(await there.engine.begin(call(key, { resumable: true })))
    expect(resumed.execution.attempt).toBe(2)
    await resumed.complete(outcome('resumed'), 60_000, false)
  })

  it('an owner whose row is gone is dead: its execution is unknown, or resumed by one of many', async () => {
    const key = freshKey()
    attemptOf(await here.engine.begin(call(key)))
    expect((await there.engine.begin(call(key))).kind).toBe('running')
    await here.heartbeat.stop()
    expect((await there.engine.begin(call(key))).kind).toBe('unknown')
    const third = await startProcess()
    const resumed = await Promise.all(
      [there, third].flatMap(({ engine }) =>
        Array.from({ length: 10 }, () => engine.begin(call(key, { resumable: true }))),
      ),
    )
    expect(resumed.filter(({ kind }) => kind === 'run')).toHaveLength(1)
    expect(resumed.filter(({ kind }) => kind === 'running')).toHaveLength(19)
  })

  it('the abort signal fires when the attempt is no longer the current one', async () => {
    const attempt = attemptOf(await here.engine.begin(call(freshKey())))
    const { abortSignal } = attempt.execution
    expect(abortSignal.aborted).toBe(false)
    await attempt.interrupt()
    expect(abortSignal.aborted).toBe(true)
  })

  it('an outcome that comes after its attempt was interrupted still counts, a failure does not', async () => {
    const [late, failed] = [freshKey(), freshKey()]
    const attempts = await Promise.all(
      [late, failed].map(async (key) => attemptOf(await here.engine.begin(call(key)))),
    )
    for (const attempt of attempts) await attempt.interrupt()
    const [success, failure] = attempts as [Attempt, Attempt]
    expect(await success.complete(outcome('late'), 60_000, false)).toMatchObject({
      kind: 'done',
      own: true,
    })
    expect(await failure.complete(outcome('failed'), 60_000, true)).toEqual({ kind: 'superseded' })
    expect((await there.engine.begin(call(late))).kind).toBe('replay')
    expect((await there.engine.begin(call(failed))).kind).toBe('unknown')
  })

  it('stop drains what runs, takes nothing new, and gives the rest back', async () => {
    const [quick, stuck] = [freshKey(), freshKey()]
    const draining = attemptOf(await here.engine.begin(call(quick)))
    attemptOf(await here.engine.begin(call(stuck, { resumable: true })))
    const stopped = here.engine.stop(300)
    await expect(here.engine.begin(call(freshKey()))).rejects.toMatchObject({ code: 'stopping' })
    await draining.complete(outcome('drained'), 60_000, false)
    await stopped
    expect((await there.engine.begin(call(quick))).kind).toBe('replay')
    expect(attemptOf(await there.engine.begin(call(stuck))).execution.attempt).toBe(2)
  })

  describe('when replies are lost', () => {
    const once = (matches: (sql: string) => boolean): Fault => {
      let lost = false
      return (sql) => {
        if (lost || !matches(sql)) return undefined
        lost = true
        return 'lose the reply'
      }
    }

    it('row 17: a claim that is sent again recognises itself', async () => {
      const process = await startProcess(once(isClaim))
      const key = freshKey()
      const attempt = attemptOf(await process.engine.begin(call(key)))
      expect(attempt.execution.attempt).toBe(1)
      await attempt.complete(outcome('claimed once'), 60_000, false)
      expect((await there.engine.begin(call(key))).kind).toBe('replay')
    })

    it('a completion that is sent again adopts itself', async () => {
      const process = await startProcess(once(isCompletion))
      const key = freshKey()
      const attempt = attemptOf(await process.engine.begin(call(key)))
      const settled = await attempt.complete(outcome('stored once'), 60_000, false)
      expect(settled).toMatchObject({ kind: 'done', outcome: outcome('stored once') })
    })

    it('a takeover that is sent again recognises itself', async () => {
      const key = freshKey()
      await attemptOf(await here.engine.begin(call(key))).release('released')
      const process = await startProcess(once((sql) => sql.includes('attempt = e.attempt + 1')))
      const attempt = attemptOf(await process.engine.begin(call(key)))
      expect(attempt.execution.attempt).toBe(2)
      await attempt.complete(outcome('taken over once'), 60_000, false)
    })

    it('a claim that was given up is undone, so that another process may run it', async () => {
      let down = true
      const process = await startProcess(
        (sql) => (down && isClaim(sql) ? 'lose the reply' : undefined),
        1000,
      )
      const key = freshKey()
      await expect(process.engine.begin(call(key))).rejects.toMatchObject({
        code: 'store-unavailable',
      })
      down = false
      const attempt = attemptOf(await there.engine.begin(call(key, { waitMs: 5000 })))
      expect(attempt.execution.attempt).toBe(1)
      await attempt.complete(outcome('by another'), 60_000, false)
      expect((await process.engine.begin(call(key))).kind).toBe('replay')
    })
  })
})
