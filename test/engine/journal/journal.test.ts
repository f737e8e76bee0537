import { beforeEach, describe, expect, it } from 'vitest'
import { StepInterruptedError, TerminalError } from '../../../lib/index.ts'
import { withDatabase } from '../../helpers/database.ts'
import {
  attemptOf,
  begin,
  call,
  type Fault,
  journalOf,
  next,
  outcome,
  startProcess,
  type TestProcess,
  takenOver,
} from '../../helpers/engine.ts'
import { latch } from '../../helpers/latch.ts'
import { freshKey } from '../../helpers/request.ts'
import { waitFor } from '../../helpers/wait-for.ts'

const database = withDatabase()
let here: TestProcess
let there: TestProcess
beforeEach(async () => {
  here = await startProcess(database.pool)
  there = await startProcess(database.pool)
})

const entries = (key: string) => journalOf(database.pool, key)
const superseded = expect.objectContaining({ code: 'superseded' })
const never = () => {
  throw new Error('this must not run')
}

describe('two attempts at one execution', () => {
  it('end with one entry; the loser adopts it and stops before its next side effect', async () => {
    const { stale, current } = await takenOver(here, there)
    expect(await current.execution.step('a', () => 'current')).toBe('current')
    expect(await stale.execution.step('a', () => 'stale')).toBe('current')
    await expect(stale.execution.step('b', never)).rejects.toEqual(superseded)
    expect(stale.execution.abortSignal.aborted).toBe(true)
    expect(await current.execution.step('b', () => 'b')).toBe('b')
    expect((await entries(stale.key)).map(({ output, attempt }) => [output, attempt])).toEqual([
      ['current', 2],
      ['b', 2],
    ])
  })

  it('a success of the stale one counts if it is first, and it stops then', async () => {
    const { stale, current } = await takenOver(here, there)
    expect(await stale.execution.step('a', () => 'stale')).toBe('stale')
    await expect(stale.execution.step('b', never)).rejects.toEqual(superseded)
    expect(await current.execution.step('a', () => 'current')).toBe('stale')
    expect(await current.execution.step('b', () => 'b')).toBe('b')
  })

  it('that record at the very same time end with one entry', async () => {
    for (let round = 0; round < 20; round++) {
      const process = await startProcess(database.pool)
      const { stale, current } = await takenOver(process, there)
      const values = await Promise.all([
        stale.execution.step('a', () => ({ by: 'stale', at: new Date() })),
        current.execution.step('a', () => ({ by: 'current', at: new Date() })),
      ])
      expect(values[0]).toEqual(values[1])
      expect(await entries(stale.key)).toHaveLength(1)
    }
  })

  it('in one process, and in one statement, end with one entry', async () => {
    const inside = latch()
    const first = await begin(here)
    const late = first.execution.step('a', () => inside.wait.then(() => 'late'))
    await first.attempt.interrupt()
    const second = await begin(here, first.key)
    const step = second.execution.step('a', () => inside.wait.then(() => 'second'))
    here.statements.length = 0
    inside.open()
    const [a, b] = await Promise.all([late, step])
    expect(a).toBe(b)
    expect(await entries(first.key)).toHaveLength(1)
  })

  it('a failure of the stale one is not recorded', async () => {
    const { stale, current } = await takenOver(here, there)
    const fails = stale.execution.step('a', () => {
      throw new TerminalError('no')
    })
    await expect(fails).rejects.toEqual(superseded)
    expect(await entries(stale.key)).toEqual([])
    expect(await current.execution.step('a', () => 'fine')).toBe('fine')
    expect(current.attempt.hasTerminalFailure).toBe(false)
  })

  it('a failure that comes after a recorded success is no failure', async () => {
    const { stale, current } = await takenOver(here, there)
    const step = current.execution.step('a', async () => {
      await stale.execution.step('a', () => 'done already')
      throw new TerminalError('done already, says the provider')
    })
    expect(await step).toBe('done already')
    expect(current.attempt.hasTerminalFailure).toBe(false)
  })

  it('a success that comes after a recorded failure adopts the failure', async () => {
    const { stale, current } = await takenOver(here, there)
    const fails = (text: string) => () => {
      throw new TerminalError(text)
    }
    await expect(current.execution.step('a', fails('first'))).rejects.toThrow('first')
    await expect(stale.execution.step('a', () => 'late')).rejects.toThrow('first')
    expect(await entries(stale.key)).toMatchObject([{ status: 'failed', attempt: 2 }])
  })

  it('an execution that is done takes no more entries', async () => {
    const { stale, current } = await takenOver(here, there)
    await current.attempt.complete(outcome('done'), 60_000, false)
    await expect(stale.execution.step('a', () => 1)).rejects.toEqual(superseded)
    expect(await entries(stale.key)).toEqual([])
    expect(await stale.attempt.complete(outcome('late'), 60_000, false)).toMatchObject({
      own: false,
      outcome: outcome('done'),
    })
  })

  it('one of a former incarnation of the execution cannot write into the journal of the new one', async () => {
    const old = await begin(here, freshKey(), { retentionMs: 1 })
    await old.execution.step('a', () => 'old')
    await here.die()
    const renewed = await begin(there, old.key)
    expect(renewed.execution.attempt).toBe(2)
    expect(await renewed.execution.step('a', () => 'new')).toBe('new')
    await expect(old.execution.step('b', () => 'old')).rejects.toEqual(superseded)
    await expect(old.execution.step('c', never)).rejects.toEqual(superseded)
    expect((await entries(old.key)).map(({ output }) => output)).toEqual(['new'])
    const keys = [old, renewed].map(({ execution }) =>
      execution.step(`key ${execution.attempt}`, ({ idempotencyKey }) => idempotencyKey),
    )
    expect((await Promise.allSettled(keys))[0]?.status).toBe('rejected')
  })
})

describe('atMostOnce', () => {
  const once = { atMostOnce: true } as const

  it('records its intent before it runs, and its result in place of that', async () => {
    const { key, execution } = await begin(here)
    const seen = await execution.step('wire', async () => (await entries(key))[0]?.status, once)
    expect(seen).toBe('begun')
    expect(await entries(key)).toMatchObject([{ status: 'done', output: 'begun', position: 2 }])
  })

  it('found interrupted, it fails in this and every later attempt, and never runs', async () => {
    const inside = latch()
    const { stale, current } = await takenOver(here, there, async ({ execution }) => {
      execution.step('wire', () => inside.wait, once).catch(() => {})
      await waitFor('the intent', async () => (await entries(execution.key)).length === 1)
    })
    const interrupted = expect.objectContaining({ code: 'step-interrupted', step: 'wire' })
    await expect(current.execution.step('wire', never, once)).rejects.toEqual(interrupted)
    const later = await next(there, current)
    const error = await later.execution.step('wire', never, once).catch((error) => error)
    expect(error).toBeInstanceOf(StepInterruptedError)
    expect(later.attempt.hasTerminalFailure).toBe(false)
    expect(stale.key).toBe(later.key)
    inside.open()
  })

  it('one that finishes after that adopts the failure', async () => {
    const inside = latch()
    let zombie: Promise<unknown> = Promise.resolve()
    const { current } = await takenOver(here, there, async ({ execution }) => {
      zombie = execution.step('wire', () => inside.wait, once)
      zombie.catch(() => {})
      await waitFor('the intent', async () => (await entries(execution.key)).length === 1)
    })
    await expect(current.execution.step('wire', never, once)).rejects.toThrow('interrupted')
    inside.open()
    await expect(zombie).rejects.toBeInstanceOf(StepInterruptedError)
    expect(await entries(current.key)).toMatchObject([{ status: 'failed', attempt: 2 }])
  })

  it('one that finishes before that is adopted', async () => {
    const inside = latch()
    let zombie: Promise<unknown> = Promise.resolve()
    const { current } = await takenOver(here, there, async ({ execution }) => {
      zombie = execution.step('wire', () => inside.wait.then(() => 'sent'), once)
      await waitFor('the intent', async () => (await entries(execution.key)).length === 1)
    })
    inside.open()
    expect(await zombie).toBe('sent')
    expect(await current.execution.step('wire', never, once)).toBe('sent')
  })

  it('a stale attempt whose step fails, or that finds one interrupted, stops', async () => {
    const inside = latch()
    const third = await startProcess(database.pool)
    let zombie: Promise<unknown> = Promise.resolve()
    const { current: second } = await takenOver(here, there, async ({ execution }) => {
      const fails = () => inside.wait.then(() => Promise.reject(new TerminalError('no')))
      zombie = execution.step('wire', fails, once)
      zombie.catch(() => {})
      await waitFor('the intent', async () => (await entries(execution.key)).length === 1)
    })
    await there.die()
    const current = await begin(third, second.key)
    await expect(second.execution.step('wire', never, once)).rejects.toEqual(superseded)
    inside.open()
    await expect(zombie).rejects.toEqual(superseded)
    expect(await entries(current.key)).toMatchObject([{ status: 'begun' }])
    await expect(current.execution.step('wire', never, once)).rejects.toThrow('interrupted')
  })

  it('a step whose execution ends without it does not give undefined', async () => {
    const inside = latch()
    let zombie: Promise<unknown> = Promise.resolve()
    const { current } = await takenOver(here, there, async ({ execution }) => {
      zombie = execution.step('wire', () => inside.wait.then(() => 'sent'), once)
      zombie.catch(() => {})
      await waitFor('the intent', async () => (await entries(execution.key)).length === 1)
    })
    await current.attempt.complete(outcome('done'), 60_000, false)
    inside.open()
    await expect(zombie).rejects.toEqual(superseded)
  })

  it('one that threw may have taken effect: the next attempt does not run it', async () => {
    const first = await begin(here)
    const fails = first.execution.step('wire', () => Promise.reject(new Error('reset')), once)
    await expect(fails).rejects.toThrow('reset')
    const second = await next(here, first)
    await expect(second.execution.step('wire', never, once)).rejects.toThrow('interrupted')
  })

  it('does not hold up steps that were recorded after its intent', async () => {
    const first = await begin(here)
    const { execution } = first
    await Promise.allSettled([
      execution.step('wire', () => Promise.reject(new Error('reset')), once),
      execution.step('b', () => 'b'),
    ])
    const second = await next(here, first)
    const order: string[] = []
    await Promise.allSettled([
      second.execution.step('b', never).then(() => order.push('b')),
      second.execution.step('wire', never, once).catch(() => order.push('wire')),
    ])
    expect(order).toEqual(['b', 'wire'])
  })
})

describe('lost replies', () => {
  const losing = (kind: RegExp, times = 1): Fault => {
    let left = times
    return (sql) => (kind.test(sql) && left-- > 0 ? 'lose the reply' : undefined)
  }
  const RECORD = /insert into "pawl".steps/

  it('a record that is sent again is recorded once, and gives the same value', async () => {
    const process = await startProcess(database.pool, { fault: losing(RECORD, 2) })
    const { key, execution } = await begin(process)
    let runs = 0
    const value = { at: new Date(5), runs: 1 }
    const returned = await execution.step('a', () => ({ at: new Date(5), runs: ++runs }))
    expect(returned).toEqual(value)
    expect(await execution.step('b', () => 'goes on')).toBe('goes on')
    expect(await entries(key)).toHaveLength(2)
  })

  it('an intent that is sent again is ours, and the step runs', async () => {
    const process = await startProcess(database.pool, { fault: losing(RECORD) })
    const { key, execution } = await begin(process)
    expect(await execution.step('wire', () => 'sent', { atMostOnce: true })).toBe('sent')
    expect(await entries(key)).toMatchObject([{ status: 'done' }])
  })

  it('an intent whose attempt is taken over before it is sent again does not run', async () => {
    const takeOver = `update pawl.executions set attempt = attempt + 1, owner = $2 where id = $1`
    let sent = 0
    const fault: Fault = (sql) => {
      if (!RECORD.test(sql)) return undefined
      if (++sent === 1) return 'lose the reply'
      return database.pool.query(takeOver, [stale.execution.id, there.id]).then(() => {})
    }
    const process = await startProcess(database.pool, { fault })
    const stale = await begin(process)
    const wire = stale.execution.step('wire', never, { atMostOnce: true })
    await expect(wire).rejects.toEqual(superseded)
    expect(sent).toBe(2)
  })

  it('a failure that is sent again is that failure', async () => {
    const process = await startProcess(database.pool, { fault: losing(RECORD) })
    const { key, execution } = await begin(process)
    const fails = execution.step('a', () => {
      throw new TerminalError('declined', { status: 402 })
    })
    await expect(fails).rejects.toMatchObject({ message: 'declined', status: 402 })
    expect(await entries(key)).toMatchObject([{ status: 'failed' }])
  })

  it('a store that is away for a while holds the step, not the value', async () => {
    let away = 3
    const fault: Fault = (sql) =>
      RECORD.test(sql) && away-- > 0 ? 'lose the statement' : undefined
    const process = await startProcess(database.pool, { fault })
    const { execution } = await begin(process)
    let runs = 0
    expect(await execution.step('a', () => ++runs)).toBe(1)
  })

  it('a journal that cannot be read is no empty journal', async () => {
    const first = await begin(here)
    await first.execution.step('a', () => 'recorded')
    await first.attempt.release('released')
    let away = true
    const fault: Fault = (sql) =>
      away && sql.includes('s.position, s.completed_at') ? 'lose the reply' : undefined
    const process = await startProcess(database.pool, { fault, storeTimeoutMs: 300 })
    await expect(begin(process, first.key)).rejects.toMatchObject({ code: 'store-unavailable' })
    away = false
    const again = await waitFor('the execution to be given back', () =>
      begin(there, first.key).catch(() => null),
    )
    expect(await again.execution.step('a', never)).toBe('recorded')
  })
})

describe('what a journal costs', () => {
  it('an undisturbed handler of N steps: N + 2 statements, none of them a read', async () => {
    const { execution, attempt } = await begin(here)
    for (let i = 0; i < 10; i++) await execution.step('a', () => i)
    await attempt.complete(outcome('done'), 60_000, false)
    expect(here.statements).toHaveLength(12)
    const reads = here.statements.filter((sql) => !/insert into|update /.test(sql))
    expect(reads).toEqual([])
  })

  it('concurrent steps of one handler, or of many, share statements', async () => {
    const { key, execution } = await begin(here)
    here.statements.length = 0
    await Promise.all(Array.from({ length: 64 }, (_, i) => execution.step('a', () => i)))
    expect(here.statements.length).toBeLessThanOrEqual(3)
    expect(await entries(key)).toHaveLength(64)
    const many = await Promise.all(Array.from({ length: 64 }, () => begin(here)))
    here.statements.length = 0
    await Promise.all(many.map(({ execution }) => execution.step('a', () => 1)))
    expect(here.statements.length).toBeLessThanOrEqual(3)
  })

  it('a resumed handler reads the journal once', async () => {
    const first = await begin(here)
    for (let i = 0; i < 5; i++) await first.execution.step('a', () => i)
    await first.attempt.release('released')
    there.statements.length = 0
    const second = attemptOf(await there.engine.begin(call(first.key, { resumable: true })))
    for (let i = 0; i < 5; i++) await second.execution.step('a', never)
    await second.complete(outcome('done'), 60_000, false)
    // Claim, take over, journal, complete.
    expect(there.statements).toHaveLength(4)
  })
})
