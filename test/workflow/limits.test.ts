import { describe, expect, it } from 'vitest'
import type { WorkflowExecution } from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('What cannot be stored', () => {
  const money = new (class Money {})()

  it.each<[string, (execution: WorkflowExecution, value: unknown) => unknown]>([
    ['a step returns it', (execution, value) => execution.step('charge', () => value)],
    [
      'a step returns it and the code throws another error',
      async (execution, value) => {
        try {
          return await execution.step('charge', () => value)
        } catch (cause) {
          throw new Error('wrapped', { cause })
        }
      },
    ],
    ['the workflow returns it', (_, value) => value],
  ])(
    'parks the workflow at its first attempt if %s; it ends once the code is corrected',
    async (what, code) => {
      let ran = 0
      let value: unknown = money
      const pawl = app.pawl()
      const workflow = pawl.workflow(what, { retry: { backoff: 1 } }, async (execution) => {
        ran++
        return code(execution, value)
      })
      await pawl.start()
      const handle = await workflow.start(undefined)
      await app.until(handle.id, 'parked')
      const { attempt, error } = await handle.status()
      expect(attempt).toBe(1)
      expect(error?.cause ?? error).toMatchObject({ code: 'value-unkeepable' })
      expect(ran).toBe(1)
      value = 'plain'
      await pawl.release({ id: handle.id })
      expect(await handle.result()).toBe('plain')
    },
  )

  it('makes the answer of a request final: the effect of its step does not happen again', async () => {
    let charges = 0
    const { url } = await startApp(database.url, { resumable: true }, (app) => {
      app.post('/', async (req, res) => {
        const step = req.execution?.step('charge', () => {
          charges++
          return money
        })
        const failure = await step?.catch((error: { code: string }) => error.code)
        res.status(503).json({ failure })
      })
    })
    const key = freshKey()
    const first = await request(url, { key })
    const retry = await request(url, { key })
    for (const { status, json } of [first, retry]) {
      expect([status, json]).toEqual([503, { failure: 'value-unkeepable' }])
    }
    expect(retry.headers['idempotent-replayed']).toBe('true')
    expect(charges).toBe(1)
    const { rows } = await database.pool.query(
      `select name, status from pawl.step_log where key = $1`,
      [key],
    )
    expect(rows).toEqual([{ name: 'charge', status: 'failed' }])
  })
})

describe('Limits of an execution', () => {
  it('refuse an input that is too large: nothing is started', async () => {
    const pawl = app.pawl({ limits: { input: 100 } })
    const workflow = pawl.workflow('input', () => 1)
    await pawl.start()
    const error = await workflow.start('x'.repeat(99)).catch((error) => error)
    expect(error).toMatchObject({ code: 'limit-exceeded' })
    expect(error.message).toMatch(
      /The input of Workflow "input" takes 101 bytes, and at most 100 are/,
    )
    const handle = await workflow.start('x'.repeat(98))
    expect(await handle.result()).toBe(1)
    await expect(pawl.signal(handle.id, 'x', 'x'.repeat(99))).rejects.toMatchObject({
      code: 'limit-exceeded',
    })
  })

  it('park a workflow whose result is too large, at once; it ends once the limit is raised', async () => {
    const pawl = app.pawl({ limits: { output: 100 } })
    const code = () => 'x'.repeat(99)
    const workflow = pawl.workflow('output', code)
    await pawl.start()
    const { id, key } = await workflow.start(undefined)
    await app.until(id, 'parked')
    expect(await pawl.status(id)).toMatchObject({
      attempt: 1,
      error: { code: 'limit-exceeded', message: expect.stringMatching(/takes 101 bytes/) },
    })
    await pawl.stop()
    const larger = app.pawl()
    const again = larger.workflow('output', code)
    await larger.start()
    await larger.release({ id })
    expect(await again.handle(key).result()).toBe('x'.repeat(99))
  })

  it('name the step whose result is too large, and lose nothing that is recorded', async () => {
    const ran: string[] = []
    const code = async (execution: WorkflowExecution) => {
      await execution.step('small', () => ran.push('small'))
      const large = await execution.step('large', () => {
        ran.push('large')
        return 'x'.repeat(999)
      })
      return large.length
    }
    const pawl = app.pawl({ limits: { step: '1kb' } })
    const tight = app.pawl({ limits: { step: 1000 } })
    const workflow = tight.workflow('step', code)
    await tight.start()
    const { id, key } = await workflow.start(undefined)
    await app.until(id, 'parked')
    const { error, attempt } = await tight.status(id)
    expect(error).toMatchObject({ code: 'limit-exceeded' })
    expect(error?.message).toMatch(/step "large" returned 1001 bytes, but at most 1000 are allowed/)
    expect(attempt).toBe(1)
    expect(await app.journal(id)).toEqual(['step small'])
    await tight.stop()
    const handle = pawl.workflow('step', code).handle(key)
    await pawl.start()
    await pawl.release({ id })
    expect(await handle.result()).toBe(999)
    expect(ran).toEqual(['small', 'large', 'large'])
  })

  it('roll back a transaction whose result is too large', async () => {
    await database.pool.query('create table rows (n integer)')
    const pawl = app.pawl({ limits: { step: 100 } })
    const workflow = pawl.workflow('transaction', (execution) =>
      execution.transaction('insert', async (tx) => {
        await tx.query('insert into rows values (1)')
        return 'x'.repeat(200)
      }),
    )
    await pawl.start()
    const { id } = await workflow.start(undefined)
    await app.until(id, 'parked')
    expect((await pawl.status(id)).error?.message).toMatch(
      /transaction "insert" returned 202 bytes/,
    )
    expect((await database.pool.query('select from rows')).rows).toHaveLength(0)
  })

  it('refuse a step beyond the number an execution may have, before it begins', async () => {
    const ran: number[] = []
    const code = async (execution: WorkflowExecution) => {
      await execution.step('book', () => 1, { compensate: () => void ran.push(-1) })
      for (let i = 0; i < 3; i++) await execution.step('many', () => ran.push(i))
      await execution.signal('go')
      return ran.length
    }
    const pawl = app.pawl({ limits: { steps: 3 } })
    const workflow = pawl.workflow('many', code)
    await pawl.start()
    const { id, key } = await workflow.start(undefined)
    await app.until(id, 'parked')
    const { error } = await pawl.status(id)
    expect(error).toMatchObject({ code: 'limit-exceeded' })
    expect(error?.message).toMatch(/"many" would be entry 4 of its execution, but at most 3 are/)
    expect(ran).toEqual([0, 1])
    await pawl.stop()

    const larger = app.pawl({ limits: { steps: 5 } })
    const handle = larger.workflow('many', code).handle(key)
    await larger.start()
    await larger.release({ id })
    await app.until(id, 'waiting')
    await handle.signal('go')
    expect(await handle.result()).toBe(3)
    await waitFor('nothing to be undone', () => !ran.includes(-1))
  })

  it('apply to requests too: recorded steps stay, and a step that is too large has failed for good', async () => {
    const ran: string[] = []
    const { url } = await startApp(
      database.url,
      { resumable: true },
      (app) => {
        app.post('/', async (req, res, next) => {
          try {
            await req.execution?.step('small', () => ran.push('small'))
            await req.execution?.step('large', () => {
              ran.push('large')
              return 'x'.repeat(req.get('size') === 'large' ? 200 : 10)
            })
            for (let i = 0; i < 2; i++) await req.execution?.step('many', () => ran.push('many'))
            res.json(ran)
          } catch (error) {
            const { code, message } = error as { code?: string; message: string }
            if (code === 'limit-exceeded') res.status(500).send(message)
            else next(error)
          }
        })
      },
      { pawl: { limits: { step: 100, steps: 3 } } },
    )
    const key = freshKey()
    const headers = { size: 'large' }
    const large = await request(url, { key, headers })
    expect(large.status).toBe(500)
    expect(String(large.body)).toMatch(/step "large" returned 202 bytes, but at most 100/)
    // The answer is the outcome: the effect of the step must not happen again.
    const retry = await request(url, { key, headers })
    expect([retry.status, retry.text]).toEqual([500, large.text])
    expect(retry.headers['idempotent-replayed']).toBe('true')
    expect(ran).toEqual(['small', 'large'])

    ran.length = 0
    const other = freshKey()
    for (let attempt = 0; attempt < 2; attempt++) {
      const many = await request(url, { key: other })
      expect(many.status).toBe(500)
      expect(String(many.body)).toMatch(/"many" would be entry 4 of its execution/)
    }
    expect(ran).toEqual(['small', 'large', 'many'])
  })

  it('are checked when Pawl is created', () => {
    expect(() => app.pawl({ limits: { steps: 0 } })).toThrow(/Option "limits.steps" is 0/)
    expect(() => app.pawl({ limits: { step: 'big' } })).toThrow(/Option "limits.step" is "big"/)
  })
})
