import type { Pool } from 'pg'
import { beforeAll, describe, expect, it } from 'vitest'
import { CrashTestError, type CrashTestOptions, crashTest } from '../../lib/testing/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { FakeProvider } from '../helpers/fake-provider.ts'
import { proofOnly } from '../helpers/proof.ts'
import { appWith, insertOrder, itemsOf, ORDERS, SLOW } from './handlers.ts'

const { pool } = withDatabase()
beforeAll(() => pool.query(ORDERS))

const REQUEST = { path: '/orders', body: { item: 'book' } }

const provider = new FakeProvider()
const check = async ({ key }: { key: string }) => ({
  charged: provider.charged(key),
  orders: await itemsOf(pool, key),
})

type Options = CrashTestOptions<Pool>

/** What crashTest() throws. */
async function failing(
  makeApp: Parameters<typeof crashTest<Pool>>[0],
  options: Partial<Options> = {},
): Promise<CrashTestError> {
  try {
    await crashTest(makeApp, REQUEST, { database: pool, check, ...options })
  } catch (error) {
    if (error instanceof CrashTestError) return error
    throw error
  }
  throw new Error('It passed.')
}

const crashesOf = ({ failures }: CrashTestError) =>
  failures.map(({ crashes }) => crashes.join(' | '))

describe('crashTest() catches', SLOW, () => {
  it('a charge outside of a step and without a key', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const charge = await provider.charge(execution.key, 10)
      await execution.transaction('record order', (tx) =>
        insertOrder(tx, execution.key, 'book', charge.id),
      )
      res.status(201).json({})
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual([
      'before transaction "record order" begins',
      'before the journal entry of transaction "record order"',
      'before transaction "record order" commits',
      'after transaction "record order" has committed',
      'before the answer is recorded',
    ])
    expect(error.message).toContain(
      [
        '5 of 9 runs with crashes change what POST /orders does.',
        '',
        'Crash before transaction "record order" begins:',
        '  check.charged: expected [ 10 ], got [ 10, 10 ]',
        '  Something took effect twice, or not at all.',
      ].join('\n'),
    )
    expect(error).toMatchObject({
      name: 'CrashTestError',
      expected: { 'check.charged': [10] },
      actual: { 'check.charged': [10, 10] },
    })
  })

  it('a charge in a step, but without the key that the step gives', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      await execution.step('charge card', () => provider.charge(execution.key, 10))
      res.json({})
    })
    expect(crashesOf(await failing(makeApp))).toEqual(['before step "charge card" is recorded'])
  })

  proofOnly('rows that are written outside of a transaction', async () => {
    const makeApp = appWith((pool) => async (execution, _req, res) => {
      await execution.step('record order', () => insertOrder(pool, execution.key, 'book'))
      await execution.step('record gift', () => insertOrder(pool, execution.key, 'bookmark'))
      res.json({})
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual([
      'before step "record order" is recorded',
      'before step "record gift" is recorded',
    ])
    expect(error.failures[1]?.differences).toEqual([
      {
        path: 'check.orders',
        expected: ['book', 'bookmark'],
        actual: ['book', 'bookmark', 'bookmark'],
      },
    ])
  })

  proofOnly('an effect that a crash leaves out', async () => {
    const makeApp = appWith((pool) => async (execution, _req, res) => {
      const order = await execution.transaction('record order', (tx) =>
        insertOrder(tx, execution.key, 'book'),
      )
      if (execution.attempt === 1) await insertOrder(pool, execution.key, 'bookmark')
      res.json({ order })
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)[0]).toBe('after the request is claimed, before its handler runs')
    expect(error.message).toContain("check.orders: expected [ 'book', 'bookmark' ], got [ 'book' ]")
  })

  proofOnly('random numbers between steps that end up in the answer', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      await execution.step('charge card', ({ idempotencyKey }) =>
        provider.charge(execution.key, 10, idempotencyKey),
      )
      const code = Math.random()
      await execution.transaction('record order', (tx) => insertOrder(tx, execution.key, 'book'))
      res.json({ code })
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual(['before the answer is recorded'])
    expect(error.message).toMatch(/answer\.body\.code: expected 0\.\d+, got 0\.\d+/)
    expect(error.message).toContain('execution.now(), random() or uuid()')
  })

  it('an answer that tells the attempt', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      res.json({ attempt: execution.attempt })
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual([
      'after the request is claimed, before its handler runs',
      'before the answer is recorded',
    ])
    expect(error.message).toContain('answer.body.attempt: expected 1, got 2')
    expect(error.message).toContain('The answer after the crash differs.')
  })

  proofOnly('a handler that may not run again', async () => {
    const makeApp = appWith(() => (_execution, _req, res) => res.json({}), {})
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual([
      'after the request is claimed, before its handler runs',
      'before the answer is recorded',
    ])
    expect(error.message).toContain('answer.status: expected 200, got 409')
    expect(error.message).toContain('resumable: true')
  })

  it('a handler that gets stuck after a crash', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      if (execution.attempt === 1) res.json({})
    })
    const error = await failing(makeApp, { timeout: '200ms' })
    expect(crashesOf(error)[0]).toBe('after the request is claimed, before its handler runs')
    expect(error.message).toContain('There was no answer within 200 ms.')
  })

  it('a handler that asks for fewer steps the next time', async () => {
    let runs = 0
    const makeApp = appWith(() => async (execution, _req, res) => {
      if (++runs <= 2) await execution.step('look around', () => 1)
      res.json({})
    })
    const error = await failing(makeApp)
    expect(crashesOf(error)).toEqual([
      'before step "look around" is recorded',
      'after step "look around" is recorded',
    ])
    expect(error.message).toContain('This run did not reach that point')
  })

  proofOnly('what only a second crash brings about', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const key = execution.attempt > 2 ? null : execution.id
      await execution.step('charge card', () => provider.charge(execution.key, 10, key))
      res.json({})
    })
    await crashTest(makeApp, REQUEST, { database: pool, check })
    expect(crashesOf(await failing(makeApp, { crashes: 2 }))).toEqual([
      'after the request is claimed, before its handler runs | before step "charge card" is recorded',
      'before step "charge card" is recorded | after the execution is taken over, before the handler runs again',
      'before step "charge card" is recorded | before step "charge card" is recorded',
    ])
  })

  it('an assertion in check, and says which crash it was', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      await provider.charge(execution.key, 10)
      res.json({})
    })
    const error = await failing(makeApp, {
      check: ({ key }) => {
        expect(provider.charged(key)).toHaveLength(1)
      },
    })
    expect(crashesOf(error)).toEqual(['before the answer is recorded'])
    expect(error.message).toContain('Threw AssertionError: expected [ 10, 10 ] to have a length')
  })
})

describe('crashTest() lets differ', SLOW, () => {
  it('values created for each request, and what the outcome option leaves out', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      const id = await execution.transaction('record order', (tx) =>
        insertOrder(tx, execution.key, 'book'),
      )
      res.set('X-Attempt', String(execution.attempt)).json({ id, uuid: execution.uuid() })
    })
    const error = await failing(makeApp)
    expect(error.failures[0]?.differences.map(({ path }) => path)).toEqual([
      'answer.headers.x-attempt',
    ])
    await crashTest(makeApp, REQUEST, {
      database: pool,
      check,
      outcome: ({ status, body }) => ({ status, body }),
    })
  })

  it('state that the reset option restores before each run', async () => {
    let books = 0
    const makeApp = appWith(() => async (_execution, _req, res) => {
      books = 1
      res.json({})
    })
    await crashTest(makeApp, REQUEST, {
      database: pool,
      reset: () => {
        books = 0
      },
      check: () => ({ books }),
    })
  })
})

describe('crashTest() says what it needs', SLOW, () => {
  const fine = appWith(() => (_execution, _req, res) => res.json({}))

  it('a check that returns the same after each run without a crash', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      await provider.charge('everybody', 1, execution.id)
      res.json({})
    })
    const error = await failing(makeApp, { check: () => provider.charged('everybody') })
    expect(error.failures).toEqual([])
    expect(error.message).toContain('check() returns something else after each run')
    expect(error.message).toContain('check: expected [ 1 ], got [ 1, 1 ]')
  })

  it('plain data', async () => {
    await expect(
      crashTest(fine, REQUEST, { database: pool, check: () => ({ f() {} }) }),
    ).rejects.toThrow('check() must return plain data')
  })

  it('an app that uses the database it is given', async () => {
    const makeApp = appWith(() => (_execution, _req, res) => res.json({ a: 1 }))
    const error = await failing((given) => makeApp({ ...given, database: pool }))
    expect(error.message).toContain(
      'The request did not reach Pawl, and was answered with 200 {"a":1}.',
    )
  })

  it('an outcome without a crash', async () => {
    const makeApp = appWith(() => async (execution, _req, res) => {
      await execution.step('charge', () => 1)
      res.status(503).json({ busy: true })
    })
    const error = await failing(makeApp, { retries: 1 })
    expect(error.message).toBe(
      'POST /orders has no outcome, even without a crash. There is no final answer after 2 tries; the last was 503 {"busy":true}.',
    )
  })

  it('a good key', async () => {
    const makeApp = appWith(() => (_execution, _req, res) => res.json({}), { required: true })
    await expect(crashTest(makeApp, () => REQUEST, { database: pool, check })).rejects.toThrow(
      'urn:pawl:problem:key-missing',
    )
  })

  it.each([
    [
      { database: 'postgres://' },
      'Option "database" is "postgres://"; allowed: a pg.Pool or a PGlite instance',
    ],
    [{ check: undefined }, 'Option "check" is missing; allowed: a function'],
    [{ crashes: 3 }, 'Option "crashes" is 3; allowed: 1 or 2'],
    [{ retries: -1 }, 'Option "retries" is -1; allowed: a whole number from 0 to 1000'],
    [{ timeout: 'soon' }, 'Option "timeout" is "soon"; allowed:'],
    [{ chekc: 1 }, 'There is no option "chekc"'],
  ])('options that are right: %j', async (wrong, message) => {
    const options = { database: pool, check, ...wrong } as Options
    await expect(crashTest(fine, REQUEST, options)).rejects.toThrow(`crashTest(): ${message}`)
  })

  it.each([
    [{ path: 'orders' }, 'Option "path" is "orders"; allowed: a path that begins with /'],
    [{ path: '/', body: 1 }, 'Option "body" is 1; allowed: a string, bytes, or an object'],
  ])('a request that is right: %j', async (wrong, message) => {
    await expect(
      crashTest(fine, wrong as typeof REQUEST, { database: pool, check }),
    ).rejects.toThrow(`crashTest(): the request: ${message}`)
  })
})
