import { setImmediate as turn } from 'node:timers/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Execution } from '../../../lib/index.ts'
import { withDatabase } from '../../helpers/database.ts'
import { begin, next, startProcess, type TestProcess } from '../../helpers/engine.ts'
import { latch } from '../../helpers/latch.ts'

const database = withDatabase()
let here: TestProcess
let there: TestProcess
beforeEach(async () => {
  here = await startProcess(database.pool)
  there = await startProcess(database.pool)
})

/** What a handler sees in its first attempt, and in a later one of another process. */
async function twice<T>(handler: (execution: Execution) => Promise<T>): Promise<[T, T]> {
  const first = await begin(here)
  const seen = await handler(first.execution)
  await first.attempt.release('released')
  const second = await begin(there, first.key)
  return [seen, await handler(second.execution)]
}

describe('now, random and uuid', () => {
  it('are the same in every attempt, and another for each call', async () => {
    const [first, second] = await twice(async (execution) => {
      const seen: unknown[] = []
      const look = () => seen.push([execution.now(), execution.random(), execution.uuid()])
      look()
      for (let i = 0; i < 3; i++) {
        await execution.step('a', () => turn())
        look()
      }
      await execution.transaction('t', (tx) => tx.query('select 1').then(() => 1))
      look()
      return seen
    })
    expect(second).toEqual(first)
    const drawn = first.flatMap((look) => (look as unknown[]).slice(1))
    expect(new Set(drawn).size).toBe(drawn.length)
  })

  it('are the same behind concurrent steps, which finish in one order', async () => {
    const [first, second] = await twice(async (execution) => {
      const branch = async (i: number) => {
        await execution.step('a', () => new Promise((resolve) => setTimeout(resolve, (i * 7) % 20)))
        const seen = [i, execution.now().getTime(), execution.random(), execution.uuid()]
        await execution.step('b', () => i)
        return [...seen, execution.uuid()]
      }
      return Promise.all(Array.from({ length: 12 }, (_, i) => branch(i)))
    })
    expect(second).toEqual(first)
  })

  it('are the same behind a step that has drawn some itself', async () => {
    const [first, second] = await twice(async (execution) => {
      const inside = await execution.step('a', () => [execution.uuid(), execution.random()])
      const inTransaction = await execution.transaction('t', () => [execution.uuid()])
      return [inside, inTransaction, execution.uuid(), execution.random()]
    })
    expect(second).toEqual(first)
    expect(new Set(first.flat()).size).toBe(5)
  })

  it('inside a step: the same in every try of it, another in another step', async () => {
    const first = await begin(here)
    const seen: string[] = []
    const draw = () => seen.push(first.execution.uuid(), first.execution.uuid())
    const fails = async ({ attempt }: { attempt: number }) => {
      draw()
      if (attempt === 1) throw new Error('once more')
      throw new Error('and not recorded')
    }
    const retry = { attempts: 2, backoff: 0 }
    await expect(first.execution.step('a', fails, { retry })).rejects.toThrow('not recorded')
    const second = await next(there, first)
    await second.execution.step('a', () => {
      seen.push(second.execution.uuid(), second.execution.uuid())
    })
    expect(seen.slice(2, 4)).toEqual(seen.slice(0, 2))
    expect(seen.slice(4)).toEqual(seen.slice(0, 2))
    draw()
    expect(new Set(seen).size).toBe(4)
  })

  it('differ from execution to execution, and from incarnation to incarnation', async () => {
    const one = await begin(here, undefined, { retentionMs: 1 })
    const drawn = [one.execution.uuid(), one.execution.random()]
    await here.die()
    const again = await begin(there, one.key)
    const other = await begin(there)
    for (const { execution } of [again, other]) {
      expect(drawn).not.toContain(execution.uuid())
      expect(drawn).not.toContain(execution.random())
    }
  })

  it('random is uniform, and in range', async () => {
    const { execution } = await begin(here)
    const buckets = new Array<number>(20).fill(0)
    const n = 20_000
    for (let i = 0; i < n; i++) {
      const value = execution.random()
      expect(value >= 0 && value < 1).toBe(true)
      buckets[Math.floor(value * 20)]!++
    }
    // Chi-squared with 19 degrees of freedom: above 60 once in two million.
    const expected = n / 20
    const chi = buckets.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    expect(chi).toBeLessThan(60)
    expect(execution.uuid()).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    )
  })

  it('now starts with the claim and never goes back', async () => {
    const { execution } = await begin(here)
    const times = [execution.now()]
    for (let i = 0; i < 3; i++) {
      await execution.step('a', () => new Promise((resolve) => setTimeout(resolve, 5)))
      times.push(execution.now())
    }
    expect([...times].sort((a, b) => Number(a) - Number(b))).toEqual(times)
    const { rows } = await database.pool.query(
      'select created_at from pawl.executions where id = $1',
      [execution.id],
    )
    expect(times[0]).toEqual(rows[0].created_at)
  })
})

describe('idempotencyKey', () => {
  it('is stable for a step, and different across steps, occurrences and executions', async () => {
    const draw = async (execution: Execution) => {
      const keys: string[] = []
      for (const name of ['a', 'a', 'b']) {
        await execution
          .step(name, ({ idempotencyKey }) => {
            keys.push(idempotencyKey)
            throw new Error('not recorded')
          })
          .catch(() => {})
      }
      return keys
    }
    const [first, second] = await twice(draw)
    expect(second).toEqual(first)
    const other = await draw((await begin(here)).execution)
    expect(new Set([...first, ...other]).size).toBe(6)
  })
})

describe('concurrent steps', () => {
  /** Races n steps of which the k-th ends first. */
  const race =
    (wrap: (step: Promise<number>) => Promise<number>) => async (execution: Execution) => {
      const order: number[] = []
      const steps = [30, 5, 60, 15].map((ms, i) =>
        wrap(
          execution.step('racer', async () => {
            await new Promise((resolve) => setTimeout(resolve, ms))
            return i
          }),
        ).then((i) => {
          order.push(i)
          return i
        }),
      )
      const winner = await Promise.race(steps)
      await Promise.all(steps)
      return [winner, ...order]
    }
  const through = (n: number) => async (step: Promise<number>) => {
    let value = step
    for (let i = 0; i < n; i++) value = value.then((v) => v)
    return value
  }

  it.each([
    ['as they are', through(0)],
    ['behind one then', through(1)],
    ['behind fifty thens', through(50)],
    [
      'behind a different number each',
      async (step: Promise<number>) => through(((await step) * 17) % 40)(step),
    ],
    [
      'whose failures are handled',
      (step: Promise<number>) => step.catch(() => -1).finally(() => {}),
    ],
  ])('%s are won by the same one in every attempt', async (_, wrap) => {
    const [first, second] = await twice(race(wrap))
    expect(second).toEqual(first)
  })

  it('steps and transactions that race are won by the same one', async () => {
    const [first, second] = await twice(async (execution) => {
      const order: string[] = []
      await Promise.all([
        execution.step('s', () => turn()).then(() => order.push('s')),
        execution
          .transaction('t', (tx) => tx.query('select 1').then(() => 1))
          .then(() => order.push('t')),
        execution.step('u', () => 1).then(() => order.push('u')),
      ])
      return order
    })
    expect(second).toEqual(first)
  })

  it('that failed for good keep their place among those that did not', async () => {
    const { TerminalError } = await import('../../../lib/index.ts')
    const [first, second] = await twice(async (execution) => {
      const order: string[] = []
      const slow = latch()
      const steps = [
        execution.step('slow', () => slow.wait).then(() => order.push('slow')),
        execution
          .step('bad', () => Promise.reject(new TerminalError('bad')))
          .catch(() => {
            order.push('bad')
            slow.open()
          }),
      ]
      await Promise.all(steps)
      return order
    })
    expect(first).toEqual(['bad', 'slow'])
    expect(second).toEqual(first)
  })

  it('by the hundred: each is recorded once and gets its own value', async () => {
    const [first, second] = await twice((execution) =>
      Promise.all(
        Array.from({ length: 300 }, (_, i) =>
          execution.step(i % 2 ? 'odd' : 'even', ({ idempotencyKey }) => [i, idempotencyKey]),
        ),
      ),
    )
    expect(second).toEqual(first)
    expect(new Set(first.map(([, key]) => key)).size).toBe(300)
  })

  it('a resumed race goes on with those that were not recorded', async () => {
    const never = latch()
    const first = await begin(here)
    const step = (execution: Execution, name: string, work: () => unknown) =>
      execution.step(name, async () => {
        await work()
        return name
      })
    const winner = await Promise.race([
      step(first.execution, 'slow', () => never.wait),
      step(first.execution, 'quick', () => {}),
    ])
    const second = await next(there, first)
    const steps = [
      step(second.execution, 'slow', () => {}),
      step(second.execution, 'quick', () => never.wait),
    ]
    expect(await Promise.race(steps)).toBe(winner)
    expect(await Promise.all(steps)).toEqual(['slow', 'quick'])
  })

  it('a recorded step that nobody asks for any more holds the others up only for a while', async () => {
    const first = await begin(here)
    for (const name of ['gone', 'a', 'also gone', 'b']) await first.execution.step(name, () => name)
    const second = await next(there, first)
    const names = await Promise.all(
      ['b', 'a'].map((name) => second.execution.step(name, () => 'new')),
    )
    expect(names).toEqual(['b', 'a'])
    expect(second.attempt.skippedSteps).toEqual(['gone', 'also gone'])
  })
})
