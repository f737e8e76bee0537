import { setTimeout as sleep } from 'node:timers/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { runInExecution } from '../../../lib/engine/current-execution.ts'
import {
  DivergenceError,
  PawlError,
  type StepOptions,
  step,
  TerminalError,
  transaction,
} from '../../../lib/index.ts'
import { delayAfter } from '../../../lib/store/database/backoff.ts'
import { withDatabase } from '../../helpers/database.ts'
import { begin, journalOf, next, startProcess, type TestProcess } from '../../helpers/engine.ts'

const database = withDatabase()
let here: TestProcess
beforeEach(async () => {
  here = await startProcess(database.pool)
})

const entries = (key: string) => journalOf(database.pool, key)
const never = () => {
  throw new Error('this must not run')
}
/** Fails n times, then gives how often it ran. */
const failing = (n: number, error: Error = new Error('not yet')) => {
  let runs = 0
  const fn = (_?: unknown) => {
    if (++runs <= n) throw error
    return runs
  }
  return Object.assign(fn, { runs: () => runs })
}

describe('a step', () => {
  it('records once, replays, and counts the uses of its name', async () => {
    const first = await begin(here)
    for (let i = 0; i < 3; i++) expect(await first.execution.step('a', () => i * 10)).toBe(i * 10)
    expect(await first.execution.step('b', async () => undefined)).toBeUndefined()
    const second = await next(here, first)
    for (let i = 0; i < 3; i++) expect(await second.execution.step('a', never)).toBe(i * 10)
    expect(await second.execution.step('a', () => 'fourth')).toBe('fourth')
    expect(await second.execution.step('b', never)).toBeUndefined()
    const seen = (await entries(first.key)).map((s) => [s.name, s.occurrence, s.output, s.attempt])
    expect(seen).toEqual([
      ['a', 1, 0, 1],
      ['a', 2, 10, 1],
      ['a', 3, 20, 1],
      ['b', 1, null, 1],
      ['a', 4, 'fourth', 2],
    ])
  })

  it('that throws is not recorded and runs again; a TerminalError is the same for ever', async () => {
    const first = await begin(here)
    await expect(first.execution.step('a', failing(1))).rejects.toThrow('not yet')
    expect(first.attempt.hasTerminalFailure).toBe(false)
    const declined = new TerminalError('declined', { status: 402, cause: new Error('funds') })
    await expect(first.execution.step('b', failing(1, declined))).rejects.toBe(declined)
    expect(first.attempt.hasTerminalFailure).toBe(true)
    const second = await next(here, first)
    expect(await second.execution.step('a', () => 'now')).toBe('now')
    expect(second.attempt.hasTerminalFailure).toBe(false)
    const again = await second.execution.step('b', never).catch((error) => error)
    expect(again).toBeInstanceOf(TerminalError)
    expect(again).toMatchObject({ message: 'declined', status: 402, cause: new Error('funds') })
    expect(second.attempt.hasTerminalFailure).toBe(true)
  })

  it('whose failure carries what cannot be kept is recorded without that', async () => {
    const first = await begin(here)
    const cause = Object.assign(new Error('402'), { code: 'funds', request: { send() {} } })
    const fails = () => Promise.reject(new TerminalError('declined', { status: 402, cause }))
    await expect(first.execution.step('a', fails)).rejects.toMatchObject({ cause })
    const second = await next(here, first)
    const again = await second.execution.step('a', never).catch((error) => error)
    expect(again).toMatchObject({ message: 'declined', status: 402, cause: { code: 'funds' } })
  })

  it('whose value cannot be kept says where, and has failed for good: its effect is there', async () => {
    const first = await begin(here)
    const returns = () => ({ lines: [{ price: new (class Money {})() }] })
    const failure = {
      code: 'value-unkeepable',
      message: expect.stringContaining('value.lines[0].price is an instance of Money'),
    }
    await expect(first.execution.step('a', returns)).rejects.toMatchObject(failure)
    expect(await first.execution.step('b', () => 'goes on')).toBe('goes on')
    const second = await next(here, first)
    await expect(second.execution.step('a', never)).rejects.toMatchObject(failure)
  })

  it('gives its value also if that is a function of the context', async () => {
    const { execution } = await begin(here)
    const seen = await execution.step('a', ({ idempotencyKey, attempt, signal }) => [
      typeof idempotencyKey,
      attempt,
      signal.aborted,
    ])
    expect(seen).toEqual(['string', 1, false])
  })

  it.each<[string, unknown]>([
    ['no name', ''],
    ['a long one', 'x'.repeat(256)],
    ['NUL', 'a\0b'],
    ['a lone surrogate', '\ud800'],
    ['a number', 5],
    ['a bigint', 1n],
    ['nothing', undefined],
    ['a symbol', Symbol('a')],
  ])('is refused under a name that is %s', async (_, name) => {
    const { execution } = await begin(here)
    for (const refused of [
      execution.step(name as string, never),
      execution.transaction(name as string, never),
    ]) {
      await expect(refused).rejects.toMatchObject({
        code: 'invalid-option',
        message: expect.stringContaining('1 to 255 characters'),
      })
    }
    expect(await execution.step('x'.repeat(255), () => 1)).toBe(1)
    expect(await execution.step('größe 📦', () => 2)).toBe(2)
  })

  it.each<[object | null, string]>([
    [{ retries: 3 }, 'There is no option "retries"; there are: schema, compensate, retry'],
    [{ retry: 0 }, 'Option "retry" is 0; allowed'],
    [{ retry: { attempts: 1.5 } }, 'Option "retry'],
    [{ retry: { backoff: 'soon' } }, 'Option "retry'],
    [{ timeout: 0 }, 'Option "timeout" is 0; allowed: more than 0'],
    [{ timeout: '5 fortnights' }, 'Option "timeout" is "5 fortnights"; allowed: milliseconds'],
    [{ schema: { parse: () => 1 } }, 'Option "schema" is {}; allowed: a zod schema'],
    [{ compensate: 'undo' }, 'Option "compensate" is "undo"; allowed: a function'],
    [{ atMostOnce: 'yes' }, 'Option "atMostOnce" is "yes"; allowed: true or false'],
    [{ atMostOnce: true, retry: 2 }, 'Option "atMostOnce" is true; allowed: true without retry'],
  ])('is refused with the options %j', async (options, message) => {
    const { execution, key } = await begin(here)
    const refused = execution.step('a', never, options as StepOptions<unknown>)
    await expect(refused).rejects.toMatchObject({
      code: 'invalid-option',
      message: expect.stringContaining(message),
    })
    await expect(refused).rejects.toThrow(/step "a"/)
    await expect(execution.step('a', undefined as never)).rejects.toThrow('no function')
    // What was refused has used up no occurrence.
    await execution.step('a', () => 1)
    expect(await entries(key)).toMatchObject([{ occurrence: 1 }])
  })

  it('is refused inside another, and inside a transaction, however deep', async () => {
    const { execution } = await begin(here)
    const nested = [
      () => execution.step('outer', () => execution.step('inner', never)),
      () => execution.step('outer', () => execution.transaction('inner', never)),
      () => execution.transaction('outer', () => execution.step('inner', never)),
      () => execution.transaction('outer', () => execution.transaction('inner', never)),
      () => execution.step('outer', () => sleep(1).then(() => step('inner', never))),
      () => execution.transaction('outer', () => sleep(1).then(() => transaction('inner', never))),
    ]
    for (const run of nested) {
      await expect(runInExecution(execution, run)).rejects.toMatchObject({
        code: 'step-nested',
        message: expect.stringMatching(/"inner" was started inside "outer"/),
      })
    }
    const other = await begin(here)
    const independent = execution.step('of this', () => other.execution.step('of another', () => 1))
    expect(await independent).toBe(1)
  })

  it('of another kind than what is recorded is divergence', async () => {
    const first = await begin(here)
    await first.execution.step('a', () => 1)
    await first.execution.transaction('b', () => 1)
    const second = await next(here, first)
    await expect(second.execution.transaction('a', never)).rejects.toBeInstanceOf(DivergenceError)
    await expect(second.execution.step('b', never)).rejects.toThrow(
      '"b" is recorded as a transaction and is now a step.',
    )
    expect(await entries(first.key)).toHaveLength(2)
  })
})

describe('retry', () => {
  it('runs it again, as often as it says, with the number of the try', async () => {
    const { execution } = await begin(here)
    const tries: number[] = []
    const fn = failing(2)
    const retry = { attempts: 3, backoff: 0 }
    const runs = await execution.step('a', ({ attempt }) => fn(tries.push(attempt)), { retry })
    expect([runs, tries]).toEqual([3, [1, 2, 3]])
    const hopeless = failing(9)
    await expect(execution.step('b', hopeless, { retry })).rejects.toThrow('not yet')
    expect(hopeless.runs()).toBe(3)
    const once = failing(9)
    await expect(execution.step('c', once)).rejects.toThrow('not yet')
    expect(once.runs()).toBe(1)
    expect(await execution.step('d', failing(1), { retry: 2 })).toBe(2)
  })

  it('leaves alone what retryIf refuses, and a TerminalError', async () => {
    const { execution } = await begin(here)
    const busy = Object.assign(new Error('busy'), { status: 503 })
    const retryIf = (error: unknown) => (error as { status?: number }).status === 503
    const retry = { attempts: 5, backoff: 0, retryIf }
    expect(await execution.step('a', failing(3, busy), { retry })).toBe(4)
    const wrong = failing(9)
    await expect(execution.step('b', wrong, { retry })).rejects.toThrow('not yet')
    expect(wrong.runs()).toBe(1)
    const terminal = failing(9, new TerminalError('no'))
    await expect(execution.step('c', terminal, { retry: 5 })).rejects.toThrow('no')
    expect(terminal.runs()).toBe(1)
  })

  it('stops waiting when its attempt is no longer the current one', async () => {
    const { attempt, execution } = await begin(here)
    const fn = failing(9)
    const waiting = execution.step('a', fn, {
      retry: { attempts: 9, backoff: '1h', maxBackoff: '1h' },
    })
    waiting.catch(() => {})
    await sleep(5)
    await attempt.interrupt()
    await expect(waiting).rejects.toMatchObject({ code: 'superseded' })
    expect(fn.runs()).toBe(1)
  })

  it('pauses between 0 and what doubles each time, up to a bound', () => {
    const backoff = { firstMs: 200, maxMs: 10_000 }
    for (const [tries, most] of [
      [1, 200],
      [2, 400],
      [4, 1600],
      [7, 10_000],
      [2000, 10_000],
    ] as const) {
      const pauses = Array.from({ length: 500 }, () => delayAfter(tries, backoff))
      expect(Math.min(...pauses)).toBeGreaterThanOrEqual(0)
      expect(Math.max(...pauses)).toBeLessThanOrEqual(most)
      // Full jitter: spread over all of it.
      expect(Math.max(...pauses)).toBeGreaterThan(most * 0.8)
      expect(Math.min(...pauses)).toBeLessThan(most * 0.2)
    }
  })
})

describe('timeout', () => {
  it('fires the signal, fails the step, and ignores what comes late', async () => {
    const { key, execution } = await begin(here)
    let reason: unknown
    const late = execution.step(
      'a',
      async ({ signal }) => {
        signal.addEventListener('abort', () => {
          reason = signal.reason
        })
        await sleep(60)
        throw new Error('late, and nobody listens')
      },
      { timeout: 10 },
    )
    await expect(late).rejects.toMatchObject({
      code: 'step-timed-out',
      message: expect.stringContaining('Step "a" took longer than 10 ms.'),
    })
    expect(reason).toMatchObject({ code: 'step-timed-out' })
    await sleep(80)
    expect(await entries(key)).toEqual([])
    expect(await execution.step('b', () => 'in time', { timeout: '1 minute' })).toBe('in time')
  })

  it('is of one try: a retry has all of it again', async () => {
    const { execution } = await begin(here)
    const options = { timeout: 300, retry: { attempts: 2, backoff: 0 } }
    const slowOnce = ({ attempt }: { attempt: number }) => sleep(attempt === 1 ? 5000 : 0, attempt)
    expect(await execution.step('a', slowOnce, options)).toBe(2)
  })

  it('the signal fires too when the attempt is no longer the current one', async () => {
    const { attempt, execution } = await begin(here)
    const signals: AbortSignal[] = []
    const steps = [{ timeout: '1 minute' }, {}].map((options, i) =>
      execution.step(`${i}`, ({ signal }) => sleep(50, signals.push(signal)), options),
    )
    await sleep(10)
    await attempt.interrupt()
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true])
    await Promise.allSettled(steps)
  })
})

describe('schema', () => {
  const schema = z.object({ id: z.string(), at: z.coerce.date(), n: z.number().default(7) })

  it('makes what is recorded and handed on, now and later', async () => {
    const first = await begin(here)
    const raw = { id: 'x', at: '2020-02-02T00:00:00Z', secret: () => 'functions are stripped' }
    const clean = { id: 'x', at: new Date('2020-02-02T00:00:00Z'), n: 7 }
    expect(await first.execution.step('a', () => raw, { schema })).toEqual(clean)
    const second = await next(here, first)
    expect(await second.execution.step('a', never, { schema })).toEqual(clean)
    const third = await next(here, second)
    expect(await third.execution.step('a', never)).toEqual(clean)
  })

  it('refuses what does not fit, and records nothing', async () => {
    const { key, execution } = await begin(here)
    await expect(execution.step('a', () => ({ id: 1 }), { schema })).rejects.toMatchObject({
      code: 'value-invalid',
      message: expect.stringMatching(/Step "a" returned a value that its schema refuses.*id/s),
    })
    expect(await entries(key)).toEqual([])
  })

  it('a recorded value that no longer fits is a PawlError, and nothing is overwritten', async () => {
    const first = await begin(here)
    await first.execution.step('a', () => ({ id: 'x' }))
    await first.execution.transaction('t', () => ({ id: 'x' }))
    const second = await next(here, first)
    const newer = z.object({ id: z.string(), total: z.number() })
    for (const replayed of [
      second.execution.step('a', never as () => never, { schema: newer }),
      second.execution.transaction('t', never as () => never, { schema: newer }),
    ]) {
      const error = await replayed.catch((error) => error)
      expect(error).toBeInstanceOf(PawlError)
      expect(error).toMatchObject({ code: 'value-invalid' })
      expect(error.message).toMatch(/recorded value of step ".*total/s)
    }
    const third = await next(here, second)
    expect(await third.execution.step('a', never)).toEqual({ id: 'x' })
  })
})
