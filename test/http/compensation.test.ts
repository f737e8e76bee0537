import { describe, expect, it } from 'vitest'
import { type Execution, TerminalError } from '../../lib/index.ts'
import { withDatabase } from '../helpers/database.ts'
import { latch } from '../helpers/latch.ts'
import { withProcesses } from '../helpers/processes.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const serve = withProcesses(database)
const IN_PROGRESS = 'urn:pawl:problem:in-progress'

/** A step that leaves its name when it runs, and when it is undone. */
function stepsOver(log: string[]) {
  return (execution: Execution, name: string, undo: () => unknown = () => {}) =>
    execution.step(name, () => log.push(name), {
      compensate: async () => {
        log.push(`undo ${name}`)
        await undo()
      },
    })
}

describe('compensation', () => {
  it.each([400, 402, 404, 409, 422])(
    'a final %i undoes what was done before it leaves',
    async (status) => {
      const log: string[] = []
      const run = stepsOver(log)
      const { post, elsewhere } = serve(async (execution, res) => {
        await run(execution, 'reserve')
        await run(execution, 'charge')
        res.status(status).set('X-Reason', 'sold out').json({ error: 'sold out' })
      })
      const first = await post()
      expect(first).toMatchObject({ status, json: { error: 'sold out' } })
      expect(log).toEqual(['reserve', 'charge', 'undo charge', 'undo reserve'])
      const again = await elsewhere()
      expect(again.headers).toMatchObject({ 'idempotent-replayed': 'true', 'x-reason': 'sold out' })
      expect(again.body).toEqual(first.body)
      expect(log).toHaveLength(4)
    },
  )

  it.each([401, 403, 408, 425, 429, 500, 503])(
    '%i is not final: nothing is undone, and the retry goes on',
    async (status) => {
      const log: string[] = []
      const run = stepsOver(log)
      const { post } = serve(async (execution, res) => {
        await run(execution, 'charge')
        res.status(execution.attempt === 1 ? status : 201).json('x')
      })
      expect((await post()).status).toBe(status)
      expect((await post()).status).toBe(201)
      expect(log).toEqual(['charge'])
    },
  )

  it.each([402, 500])('a TerminalError with status %i is final', async (status) => {
    const log: string[] = []
    const run = stepsOver(log)
    const { post, elsewhere } = serve(async (execution) => {
      await run(execution, 'reserve')
      await execution.step('charge', () => Promise.reject(new TerminalError('no', { status })))
    })
    expect((await post()).status).toBe(status)
    expect(log).toEqual(['reserve', 'undo reserve'])
    expect((await elsewhere()).status).toBe(status)
    expect(log).toHaveLength(2)
  })

  it('a 5xx that is stored undoes too', async () => {
    const log: string[] = []
    const run = stepsOver(log)
    const handler = async (execution: Execution) => {
      await run(execution, 'charge')
      throw new Error('provoked')
    }
    const { post, elsewhere } = serve(handler, { resumable: false })
    expect([(await post()).status, (await elsewhere()).status]).toEqual([500, 500])
    expect(log).toEqual(['charge', 'undo charge'])
  })

  it('one that fails: 409 with Retry-After, and a retry goes on and gives the first answer', async () => {
    const log: string[] = []
    const run = stepsOver(log)
    let away = true
    const { post, elsewhere, status } = serve(async (execution, res) => {
      await run(execution, 'reserve')
      await run(execution, 'charge', () => {
        if (away) throw new Error('the provider is away')
      })
      await run(execution, 'mail')
      if (execution.attempt > 1) return res.json('it would work now')
      res.status(409).json('sold out')
    })
    const first = await post()
    expect(first).toMatchObject({ status: 409, json: { type: IN_PROGRESS } })
    expect(Number(first.headers['retry-after'])).toBeGreaterThan(0)
    expect(await status()).toBe('released')
    expect((await elsewhere()).json.type).toBe(IN_PROGRESS)
    away = false
    const undone = await elsewhere()
    expect(undone).toMatchObject({ status: 409, json: 'sold out' })
    expect(await post()).toMatchObject({ status: 409, json: 'sold out' })
    expect(log.filter((line) => line === 'undo mail')).toHaveLength(1)
    expect(log.filter((line) => line === 'undo reserve')).toHaveLength(1)
    expect(log.slice(0, 5)).toEqual(['reserve', 'charge', 'mail', 'undo mail', 'undo charge'])
    expect(log.at(-1)).toBe('undo reserve')
  })

  it('a process that dies in the middle: the retry undoes the rest, although it would succeed', async () => {
    const log: string[] = []
    const run = stepsOver(log)
    const dying = latch()
    const buried = latch()
    let dead = false
    const { post, elsewhere, crash, steps } = serve(async (execution, res) => {
      await run(execution, 'reserve')
      await run(execution, 'charge', () => {
        if (dead) return
        dying.open()
        return buried.wait
      })
      await run(execution, 'mail')
      if (execution.attempt > 1) return res.json('it would work now')
      res.status(402).set('Content-Language', 'en').json('declined')
    })
    const zombie = post()
    await dying.wait
    await crash()
    dead = true
    const second = await elsewhere()
    expect(second).toMatchObject({ status: 402, json: 'declined' })
    expect(second.headers['content-language']).toBe('en')
    expect(log.slice(3)).toEqual(['undo mail', 'undo charge', 'undo charge', 'undo reserve'])
    buried.open()
    // It finds what another has made of it.
    expect(await zombie).toMatchObject({ status: 409, json: { type: IN_PROGRESS } })
    expect(log).toHaveLength(7)
    expect((await steps()).filter(({ kind }) => kind === 'compensation')).toHaveLength(3)
  })

  it('a branch that is still charging when the handler gives up is undone too', async () => {
    const log: string[] = []
    const charging = latch()
    const { post, steps } = serve(async (execution) => {
      await Promise.all([
        execution.step('charge', () => charging.wait.then(() => log.push('charge')), {
          compensate: () => log.push('undo charge'),
        }),
        execution.step('reserve', () => Promise.reject(new TerminalError('no', { status: 409 }))),
      ])
    })
    const answer = post()
    await waitFor('the failure', async () => (await steps()).length === 1)
    charging.open()
    expect((await answer).status).toBe(409)
    expect(log).toEqual(['charge', 'undo charge'])
  })

  it('one that hangs does not hang the client: 409 after the timeout of the route', async () => {
    let hangs = true
    const { post, elsewhere } = serve(
      async (execution, res) => {
        await execution.step('charge', () => 1, {
          compensate: () => (hangs ? new Promise(() => {}) : undefined),
        })
        res.status(409).json('sold out')
      },
      { timeout: 300 },
    )
    expect((await post()).json.type).toBe(IN_PROGRESS)
    hangs = false
    expect((await elsewhere()).json).toBe('sold out')
  })

  it('an answer that is too large to keep is given as its status', async () => {
    const log: string[] = []
    const run = stepsOver(log)
    const { post, elsewhere } = serve(
      async (execution, res) => {
        await run(execution, 'charge')
        res.status(422).type('text').send('x'.repeat(5000))
      },
      { maxBody: 1000 },
    )
    const first = await post()
    expect([first.status, first.body.length]).toEqual([422, 5000])
    expect(log).toEqual(['charge', 'undo charge'])
    expect((await elsewhere()).json).toMatchObject({ type: 'urn:pawl:problem:body-not-kept' })
  })
})
