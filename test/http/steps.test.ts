import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import {
  currentExecution,
  type Execution,
  StepInterruptedError,
  step,
  TerminalError,
} from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { latch } from '../helpers/latch.ts'
import { withProcesses } from '../helpers/processes.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'

const database = withDatabase()
const serve = withProcesses(database)
const never = () => {
  throw new Error('this must not run')
}

describe('steps in a handler', () => {
  it('a retry runs what is not recorded, in whichever process', async () => {
    const ran: string[] = []
    const { post, elsewhere, steps } = serve(async (execution, res) => {
      const ids: number[] = []
      for (const line of [1, 2, 3]) {
        ids.push(
          await execution.step('line', () => {
            ran.push(`line ${line} in ${execution.attempt}`)
            if (line > execution.attempt) throw new Error('not yet')
            return line * 100
          }),
        )
      }
      res.status(201).json({ ids, attempt: execution.attempt })
    })
    const statuses = [await post(), await elsewhere(), await post(), await elsewhere()]
    expect(statuses.map(({ status }) => status)).toEqual([500, 500, 201, 201])
    expect(statuses[3]?.headers['idempotent-replayed']).toBe('true')
    expect(statuses[3]?.json).toEqual({ ids: [100, 200, 300], attempt: 3 })
    expect(ran).toEqual(['line 1 in 1', 'line 2 in 1', 'line 2 in 2', 'line 3 in 2', 'line 3 in 3'])
    expect(await steps()).toMatchObject([
      { name: 'line', occurrence: 1, attempt: 1, output: 100, status: 'done' },
      { name: 'line', occurrence: 2, attempt: 2, output: 200, status: 'done' },
      { name: 'line', occurrence: 3, attempt: 3, output: 300, status: 'done' },
    ])
  })

  it('plain functions find the execution from anywhere below the handler', async () => {
    const charge = (amount: number) =>
      step('charge', ({ idempotencyKey }) => `${amount} ${idempotencyKey}`)
    const service = (amount: number) => sleep(1).then(() => charge(amount))
    const { post } = serve(async (execution, res) => {
      const seen: unknown[] = []
      const same = () => seen.push(currentExecution() === execution)
      await service(5)
      setTimeout(same, 1)
      setImmediate(same)
      process.nextTick(same)
      queueMicrotask(same)
      const emitter = new EventEmitter()
      emitter.on('event', same)
      emitter.emit('event')
      await step('inside', () => {
        seen.push(currentExecution() === execution)
      })
      await sleep(20)
      res.json(seen)
    })
    expect((await post()).json).toEqual([true, true, true, true, true, true])
  })

  it('concurrent requests do not see each other', async () => {
    const { post } = serve(async (execution, res) => {
      await sleep(Math.random() * 20)
      const seen = await step('who', () => currentExecution()?.key)
      res.json([execution.key, seen, currentExecution()?.key])
    })
    const keys = Array.from({ length: 30 }, () => freshKey())
    const answers = await Promise.all(keys.map((key) => post({ key })))
    expect(answers.map(({ json }) => json)).toEqual(keys.map((key) => [key, key, key]))
  })

  it('a callback from outside has no execution, and a plain step there just runs', async () => {
    const outside = new EventEmitter()
    let found: unknown = 'nothing'
    outside.on('event', async (done: () => void) => {
      found = [currentExecution(), await step('plain', ({ attempt }) => `ran ${attempt}`)]
      done()
    })
    const ticks: ((value: unknown) => void)[] = []
    const timer = setInterval(() => {
      for (const tick of ticks.splice(0)) outside.emit('event', tick)
    }, 5)
    const { post, steps } = serve(async (execution, res) => {
      await execution.step('recorded', () => 1)
      await new Promise((resolve) => ticks.push(resolve))
      res.json(1)
    })
    await post()
    clearInterval(timer)
    expect(found).toEqual([undefined, 'ran 1'])
    expect(await steps()).toHaveLength(1)
    // Outside of everything: the code as it is, its error as it is.
    const error = new Error('mine')
    await expect(step('a', () => Promise.reject(error))).rejects.toBe(error)
    expect(await step('a', ({ signal }) => signal.aborted)).toBe(false)
  })

  it('skipped recorded steps of a finished attempt are reported', async () => {
    const warnings: unknown[] = []
    const logger = { debug() {}, warn: (...args: unknown[]) => warnings.push(args) }
    const app = await startApp(
      database.url,
      {},
      (app) => {
        app.post('/', async (req, res) => {
          const { attempt } = req.execution as Execution
          if (attempt === 1) {
            for (const name of ['old', 'old', 'kept']) await step(name, () => 1)
            throw new Error('once more')
          }
          await step('kept', never)
          await step('new', () => 1)
          res.json('done')
        })
      },
      { pawl: { logger } },
    )
    const key = freshKey()
    await request(app.url, { key })
    expect(warnings).toEqual([])
    expect((await request(app.url, { key })).json).toBe('done')
    expect(warnings).toEqual([
      [
        'an execution has ended without calling all of its recorded steps',
        { execution: expect.any(String), skipped: ['old', 'old (2)'] },
      ],
    ])
  })
})

describe('the interruption rule', () => {
  const UNKNOWN = 'urn:pawl:problem:outcome-unknown'
  const journaled = (execution: Execution) => execution.step('work', () => 1).then(() => {})
  const nothing = async () => {}
  /** What the second attempt is told, and what the first. */
  const rule = [
    { did: 'journaled', work: journaled, resumable: undefined, resumes: true },
    { did: 'journaled', work: journaled, resumable: true, resumes: true },
    { did: 'journaled', work: journaled, resumable: false, resumes: false },
    { did: 'nothing', work: nothing, resumable: undefined, resumes: false },
    { did: 'nothing', work: nothing, resumable: true, resumes: true },
    { did: 'nothing', work: nothing, resumable: false, resumes: false },
  ]
  const routeOf = (resumable: boolean | undefined) => (resumable === undefined ? {} : { resumable })

  it.each(rule)('5xx, $did, resumable $resumable: resumes $resumes', async (row) => {
    const { post, elsewhere } = serve(async (execution, res) => {
      await row.work(execution)
      if (execution.attempt === 1) return res.status(503).json('not now')
      res.json('done')
    }, routeOf(row.resumable))
    expect(await post()).toMatchObject({ status: 503, json: 'not now' })
    const second = await elsewhere()
    expect(second).toMatchObject(
      row.resumes ? { status: 200, json: 'done' } : { status: 503, json: 'not now' },
    )
    expect(second.headers['idempotent-replayed']).toBe(row.resumes ? undefined : 'true')
  })

  it.each(rule)('a crash, $did, resumable $resumable: resumes $resumes', async (row) => {
    const crashing = latch()
    const inside = latch()
    const { post, elsewhere, crash } = serve(async (execution, res) => {
      await row.work(execution)
      if (execution.attempt > 1) return res.json('done')
      crashing.open()
      await inside.wait
      res.status(500).json('the zombie fails')
    }, routeOf(row.resumable))
    const first = post()
    await crashing.wait
    await crash()
    const second = await elsewhere()
    if (row.resumes) expect(second).toMatchObject({ status: 200, json: 'done' })
    else expect(second).toMatchObject({ status: 409, json: { type: UNKNOWN } })
    inside.open()
    // The failure of a zombie is nothing that counts.
    await first
    const third = await elsewhere()
    expect(third).toMatchObject(
      row.resumes ? { status: 200, json: 'done' } : { status: 409, json: { type: UNKNOWN } },
    )
  })

  it.each(rule)('a timeout, $did, resumable $resumable: resumes $resumes', async (row) => {
    const inside = latch()
    const { post, elsewhere } = serve(
      async (execution, res) => {
        await row.work(execution)
        if (execution.attempt === 1) await inside.wait
        res.json(`by ${execution.attempt}`)
      },
      { timeout: 100, ...routeOf(row.resumable) },
    )
    expect(await post()).toMatchObject({
      status: 504,
      json: { type: 'urn:pawl:problem:timed-out' },
    })
    const second = await elsewhere()
    if (row.resumes) expect(second).toMatchObject({ status: 200, json: 'by 2' })
    else expect(second).toMatchObject({ status: 409, json: { type: UNKNOWN } })
    // A success that comes late is an outcome after all, unless there is one.
    inside.open()
    const json = row.resumes ? 'by 2' : 'by 1'
    await waitFor('the outcome', async () => (await elsewhere()).status === 200)
    expect((await elsewhere()).json).toBe(json)
  })

  it.each(rule)('a throw, $did, resumable $resumable: resumes $resumes', async (row) => {
    const { post, elsewhere } = serve(async (execution, res) => {
      await row.work(execution)
      if (execution.attempt === 1) throw new Error('provoked')
      res.json('done')
    }, routeOf(row.resumable))
    expect((await post()).status).toBe(500)
    expect((await elsewhere()).status).toBe(row.resumes ? 200 : 500)
  })

  it.each([401, 403, 408, 425, 429].flatMap((status) => rule.map((row) => ({ ...row, status }))))(
    '$status, $did, resumable $resumable: never stored',
    async (row) => {
      const { post, elsewhere } = serve(async (execution, res) => {
        await row.work(execution)
        if (execution.attempt === 1) return res.status(row.status).json('not now')
        res.json('done')
      }, routeOf(row.resumable))
      expect(await post()).toMatchObject({ status: row.status, json: 'not now' })
      expect(await elsewhere()).toMatchObject({ status: 200, json: 'done' })
    },
  )

  it('a handler whose first step fails did nothing else: the retry runs it again', async () => {
    const { post } = serve(async (execution, res) => {
      await execution.step('a', () => {
        if (execution.attempt === 1) throw new Error('provoked')
      })
      res.json('done')
    })
    expect((await post()).status).toBe(500)
    expect((await post()).json).toBe('done')
  })

  it.each([400, 422, 200])(
    'what a handler answers that was told to stop does not count: %i',
    async (status) => {
      const inside = latch()
      const answered = latch()
      const { post, elsewhere, steps } = serve(
        async (execution, res) => {
          await execution.step('a', () => 1)
          if (execution.attempt === 1) await inside.wait
          // As an app does that turns all errors into one.
          try {
            await execution.step('b', () => 2)
            res.json(`by ${execution.attempt}`)
          } catch (error) {
            res.status(status).json((error as Error).message)
            answered.open()
          }
        },
        { timeout: 100 },
      )
      expect((await post()).status).toBe(504)
      inside.open()
      await answered.wait
      expect((await elsewhere()).json).toBe('by 2')
      expect(await steps()).toHaveLength(2)
    },
  )
})

describe('final failures', () => {
  it('a TerminalError that nobody catches is the answer, also if it is a 5xx', async () => {
    let runs = 0
    const { post, elsewhere } = serve(async (execution) => {
      runs++
      await execution.step('a', () => Promise.reject(new TerminalError('gone', { status: 501 })))
    })
    expect((await post()).status).toBe(501)
    const again = await elsewhere()
    expect([again.status, again.headers['idempotent-replayed'], runs]).toEqual([501, 'true', 1])
  })

  it('a StepInterruptedError is not final: once the handler can deal with it, it succeeds', async () => {
    const crashing = latch()
    let fixed = false
    const { post, elsewhere, crash } = serve(async (execution, res) => {
      try {
        await execution.step(
          'wire',
          () => {
            crashing.open()
            return new Promise(() => {})
          },
          { atMostOnce: true },
        )
      } catch (error) {
        if (!fixed || !(error instanceof StepInterruptedError)) throw error
        await execution.step('was it wired?', () => 'yes')
      }
      res.json('done')
    })
    post().catch(() => {})
    await crashing.wait
    await crash()
    expect([(await elsewhere()).status, (await elsewhere()).status]).toEqual([500, 500])
    fixed = true
    expect((await elsewhere()).json).toBe('done')
  })
})
