import { beforeEach, describe, expect, it } from 'vitest'
import type { Execution, StepOptions } from '../../../lib/index.ts'
import { DivergenceError, TerminalError } from '../../../lib/index.ts'
import { withDatabase } from '../../helpers/database.ts'
import {
  begin,
  type Fault,
  journalOf,
  next,
  outcome,
  startProcess,
  type TestProcess,
  takenOver,
} from '../../helpers/engine.ts'
import { latch } from '../../helpers/latch.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
let here: TestProcess
let there: TestProcess
beforeEach(async () => {
  here = await startProcess(database.pool)
  there = await startProcess(database.pool)
})

const conflict = outcome('sold out', 409)
const entries = (key: string) => journalOf(database.pool, key)

/** Steps whose compensations leave a line in `undone`. */
async function reserve(execution: Execution, undone: string[], names = ['a', 'b', 'a']) {
  for (const [i, name] of names.entries()) {
    const options: StepOptions<{ n: number }> = {
      compensate: ({ n }, { idempotencyKey }) => {
        undone.push(`${name} ${n} ${idempotencyKey}`)
      },
    }
    await execution.step(name, () => ({ n: i }), options)
  }
}
const withoutKeys = (undone: string[]) =>
  undone.map((line) => line.split(' ').slice(0, 2).join(' '))

describe('compensations', () => {
  it('run in reverse order, once each, with what the step gave and keys of their own', async () => {
    const { key, attempt, execution } = await begin(here)
    const undone: string[] = []
    await reserve(execution, undone)
    await execution.step('without', () => 1)
    expect(await attempt.giveUp(conflict)).toBe(conflict)
    expect(withoutKeys(undone)).toEqual(['a 2', 'b 1', 'a 0'])
    expect(new Set(undone.map((line) => line.split(' ')[2])).size).toBe(3)
    expect(await attempt.complete(conflict, 60_000, false)).toMatchObject({ own: true })
    const undo = (await entries(key)).slice(4)
    expect(undo.map(({ kind, name, occurrence }) => [kind, name, occurrence])).toEqual([
      ['giving-up', '', 1],
      ['compensation', 'a', 2],
      ['compensation', 'b', 1],
      ['compensation', 'a', 1],
    ])
  })

  it('do not meet a step of the app that has any name', async () => {
    const { attempt, execution } = await begin(here)
    const undone: string[] = []
    await reserve(execution, undone, ['a', 'undo a', 'undo', '-1 a', 'a (undo)'])
    expect(await attempt.giveUp(conflict)).toBe(conflict)
    expect(undone).toHaveLength(5)
  })

  it('of replayed steps run too, and so do those of steps that another attempt recorded', async () => {
    const undone: string[] = []
    const first = await begin(here)
    await reserve(first.execution, undone)
    const second = await next(there, first)
    await reserve(second.execution, undone)
    await second.attempt.giveUp(conflict)
    expect(withoutKeys(undone)).toEqual(['a 2', 'b 1', 'a 0'])
  })

  it('go on after a crash at any place, and the answer is the one that was decided', async () => {
    for (let crash = 0; crash <= 4; crash++) {
      let left = crash
      // The process loses its store at its n-th write after giving up.
      let givingUp = false
      const fault: Fault = (sql) => {
        const writes = givingUp && /"pawl".steps/.test(sql)
        return writes && left-- <= 0 ? new Promise(() => {}) : undefined
      }
      const process = await startProcess(database.pool, { fault })
      const first = await begin(process)
      const undone: string[] = []
      await reserve(first.execution, undone)
      givingUp = true
      first.attempt.giveUp(conflict).catch(() => {})
      await waitFor('the crash', () => left < 0 || undone.length === 3)
      await process.die()
      const before = undone.length
      const second = await begin(there, first.key)
      expect(second.attempt.isGivingUp).toBe(crash > 0)
      await reserve(second.execution, undone)
      // The handler would now succeed, or fail otherwise.
      const decided = await second.attempt.giveUp(outcome('fine after all', 400))
      expect(decided).toEqual(crash > 0 ? conflict : outcome('fine after all', 400))
      const ran = withoutKeys(undone)
      expect([...new Set(ran)]).toEqual(['a 2', 'b 1', 'a 0'])
      // What ran and was not recorded runs again, with the same key.
      expect(ran.length - 3).toBeLessThanOrEqual(before > 0 ? 1 : 0)
      expect(new Set(undone).size).toBe(3)
    }
  })

  it('are not begun by a stale attempt, and it does not decide', async () => {
    const undone: string[] = []
    const { stale, current } = await takenOver(here, there, ({ execution }) =>
      reserve(execution, undone),
    )
    await expect(stale.attempt.giveUp(conflict)).rejects.toMatchObject({ code: 'superseded' })
    expect(undone).toEqual([])
    await reserve(current.execution, undone)
    await current.execution.step('c', () => 'goes on')
    expect(await current.attempt.complete(outcome('fine'), 60_000, false)).toMatchObject({
      own: true,
    })
    expect((await entries(stale.key)).map(({ kind }) => kind)).not.toContain('giving-up')
  })

  it('once begun, no stale attempt makes it a success after all', async () => {
    const undone: string[] = []
    const inside = latch()
    const { stale, current } = await takenOver(here, there, ({ execution }) =>
      reserve(execution, undone),
    )
    await reserve(current.execution, undone, ['a', 'b'])
    const waits = { compensate: () => inside.wait }
    await current.execution.step('c', () => 1, waits)
    const givingUp = current.attempt.giveUp(conflict)
    await waitFor('the decision', async () =>
      (await entries(current.key)).some(({ kind }) => kind === 'giving-up'),
    )
    expect(await stale.attempt.complete(outcome('fine'), 60_000, false)).toEqual({
      kind: 'superseded',
    })
    inside.open()
    expect(await givingUp).toBe(conflict)
    expect(await current.attempt.complete(conflict, 60_000, false)).toMatchObject({
      own: true,
      outcome: conflict,
    })
    expect(await stale.attempt.complete(outcome('fine'), 60_000, false)).toMatchObject({
      own: false,
      outcome: conflict,
    })
  })

  it('a key that is new again has given up nothing', async () => {
    const undone: string[] = []
    const old = await begin(here, undefined, { retentionMs: 1 })
    await reserve(old.execution, undone)
    await old.attempt.giveUp(conflict)
    await here.die()
    const renewed = await begin(there, old.key)
    expect(renewed.attempt.isGivingUp).toBe(false)
    await renewed.attempt.interrupt()
    // Late, but not stale: nobody else is at work.
    expect(await renewed.attempt.complete(outcome('fine'), 60_000, false)).toMatchObject({
      own: true,
    })
  })

  it('wait for steps that are under way, and no step begins behind them', async () => {
    const undone: string[] = []
    const charging = latch()
    const { attempt, execution } = await begin(here)
    const branch = (async () => {
      await execution.step('charge', () => charging.wait.then(() => 5), {
        compensate: (amount) => {
          undone.push(`refund ${amount}`)
        },
      })
      await execution.step('ship', () => undone.push('shipped'))
    })()
    branch.catch(() => {})
    const givingUp = attempt.giveUp(conflict)
    await expect(execution.step('late', () => undone.push('late'))).rejects.toMatchObject({
      code: 'superseded',
      message: expect.stringContaining('"late" was started after the handler had given'),
    })
    charging.open()
    expect(await givingUp).toBe(conflict)
    await expect(branch).rejects.toMatchObject({ code: 'superseded' })
    expect(undone).toEqual(['refund 5'])
  })

  it('one that fails is tried three times, and the next attempt goes on with it', async () => {
    const { key, attempt, execution } = await begin(here)
    let tries = 0
    let works = false
    const steps = async (execution: Execution) => {
      await execution.step('a', () => 1, {
        compensate: () => {
          tries++
          if (!works) throw new Error('the provider is away')
        },
      })
      await execution.step('b', () => 1, { compensate: () => {} })
    }
    await steps(execution)
    await expect(attempt.giveUp(conflict)).rejects.toThrow('the provider is away')
    expect(tries).toBe(3)
    works = true
    const second = await next(there, { key, attempt })
    await steps(second.execution)
    await expect(second.execution.step('new', () => 1)).rejects.toBeInstanceOf(DivergenceError)
    expect(await second.attempt.giveUp(outcome('another', 500))).toEqual(conflict)
    expect(tries).toBe(4)
  })

  it('one whose code is gone is divergence, and comes back with the code', async () => {
    const undone: string[] = []
    const first = await begin(here)
    await reserve(first.execution, undone, ['a', 'b'])
    const failing = { compensate: () => Promise.reject(new TerminalError('not now')) }
    await first.execution.step('c', () => 1, failing)
    await expect(first.attempt.giveUp(conflict)).rejects.toThrow('not now')
    const second = await next(there, first)
    await expect(second.attempt.giveUp(conflict)).rejects.toThrow(/Step "c" is to be undone/)
    const third = await next(there, second)
    await reserve(third.execution, undone, ['a', 'b'])
    await third.execution.step('c', () => 1, { compensate: () => {} })
    expect(await third.attempt.giveUp(conflict)).toEqual(conflict)
    expect(withoutKeys(undone)).toEqual(['b 1', 'a 0'])
  })

  it('steps that failed, or were interrupted, have nothing to undo', async () => {
    const { attempt, execution } = await begin(here)
    const undone: string[] = []
    const compensate = () => {
      undone.push('undone')
    }
    const fails = (error: Error) => execution.step('a', () => Promise.reject(error), { compensate })
    await expect(fails(new TerminalError('no'))).rejects.toThrow('no')
    await expect(fails(new Error('lost'))).rejects.toThrow('lost')
    expect(await attempt.giveUp(conflict)).toBe(conflict)
    expect(undone).toEqual([])
  })

  it('a compensation runs no steps', async () => {
    const { attempt, execution } = await begin(here)
    await execution.step('a', () => 1, {
      compensate: () => execution.step('nested', () => 1),
    })
    await expect(attempt.giveUp(conflict)).rejects.toMatchObject({ code: 'step-nested' })
  })
})
