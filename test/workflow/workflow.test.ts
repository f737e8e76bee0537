import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { CancelledError, TerminalError, WorkflowFailedError } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey } from '../helpers/request.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('A workflow', () => {
  it('runs its steps and gives its result, to every handle', async () => {
    const pawl = app.pawl()
    const ran: string[] = []
    const add = pawl.workflow('add', async (execution, { a, b }: { a: number; b: number }) => {
      const sum = await execution.step('sum', () => {
        ran.push('sum')
        return a + b
      })
      return { sum }
    })
    await pawl.start()
    const key = freshKey()
    const handle = await add.start({ a: 1, b: 2 }, { key })
    expect(await handle.result()).toEqual({ sum: 3 })
    expect(await add.handle(key).result()).toEqual({ sum: 3 })
    const again = await add.start({ b: 2, a: 1 }, { key })
    expect(again.id).toBe(handle.id)
    expect(await again.result()).toEqual({ sum: 3 })
    expect(ran).toEqual(['sum'])
    expect(await handle.status()).toMatchObject({ status: 'done', result: { sum: 3 }, attempt: 1 })
    await expect(add.start({ a: 2, b: 2 }, { key })).rejects.toMatchObject({ code: 'key-reused' })
  })

  it('that throws a TerminalError fails, after its compensations have run', async () => {
    const pawl = app.pawl()
    const undone: unknown[] = []
    const pay = pawl.workflow('pay', async (execution) => {
      await execution.step('charge', () => 'charge 1', { compensate: (id) => undone.push(id) })
      throw new TerminalError('out of stock')
    })
    await pawl.start()
    const handle = await pay.start(undefined)
    const error = await handle.result().catch((error) => error)
    expect(error).toBeInstanceOf(WorkflowFailedError)
    expect(error.cause).toBeInstanceOf(TerminalError)
    expect(error.cause.message).toBe('out of stock')
    expect(undone).toEqual(['charge 1'])
    expect(await app.status(handle.id)).toBe('failed')
  })

  it('that throws another error is retried after its recorded steps; then it is parked, and released', async () => {
    const pawl = app.pawl()
    const ran: string[] = []
    let broken = true
    const flaky = pawl.workflow(
      'flaky',
      { retry: { attempts: 3, backoff: 1 } },
      async (execution) => {
        await execution.step('first', () => ran.push('first'))
        ran.push(`attempt ${execution.attempt}`)
        if (broken) throw new Error('not yet')
        return 'done'
      },
    )
    await pawl.start()
    const handle = await flaky.start(undefined)
    const error = await handle.result().catch((error) => error)
    expect(error).toMatchObject({ code: 'execution-parked', cause: { message: 'not yet' } })
    expect(ran).toEqual(['first', 'attempt 1', 'attempt 2', 'attempt 3'])
    expect(await handle.status()).toMatchObject({ status: 'parked', error: { message: 'not yet' } })
    broken = false
    expect(await pawl.release({ id: handle.id })).toBe(true)
    expect(await handle.result()).toBe('done')
    expect(ran.filter((what) => what === 'first')).toHaveLength(1)
  })

  it('refuses an input that does not match its schema, and starts nothing', async () => {
    const pawl = app.pawl()
    const strict = pawl.workflow('strict', { input: z.object({ n: z.number() }) }, () => 1)
    await pawl.start()
    await expect(strict.start({ n: 'x' } as never)).rejects.toMatchObject({ code: 'input-invalid' })
    const { rows } = await database.pool.query(`select from pawl.executions where name = 'strict'`)
    expect(rows).toHaveLength(0)
  })

  it('is cancelled: its compensations run, and its children are cancelled too', async () => {
    const pawl = app.pawl()
    const undone: string[] = []
    const child = pawl.workflow('a child', async (execution) => {
      await execution.step('book', () => 'x', { compensate: () => undone.push('child') })
      await execution.signal('never')
    })
    const parent = pawl.workflow('a parent', async (execution) => {
      await execution.step('book', () => 'x', { compensate: () => undone.push('parent') })
      const handle = await child.start(undefined)
      await handle.result()
    })
    await pawl.start()
    const handle = await parent.start(undefined)
    await app.until(handle.id, 'waiting')
    await handle.cancel()
    await expect(handle.result()).rejects.toBeInstanceOf(CancelledError)
    const { rows } = await database.pool.query('select id from pawl.executions where parent = $1', [
      handle.id,
    ])
    await app.until(rows[0].id, 'cancelled')
    expect(undone.sort()).toEqual(['child', 'parent'])
  })

  it('is cancelled even if its code handles the CancelledError in another way', async () => {
    const pawl = app.pawl()
    const stubborn = pawl.workflow('stubborn', async (execution) => {
      try {
        await execution.signal('never')
      } catch (error) {
        throw new Error('wrapped', { cause: error })
      }
    })
    await pawl.start()
    const handle = await stubborn.start(undefined)
    await app.until(handle.id, 'waiting')
    await handle.cancel()
    await app.until(handle.id, 'cancelled')
  })
})
