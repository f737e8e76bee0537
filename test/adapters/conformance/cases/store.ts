import { expect } from 'vitest'
import { waitFor } from '../../../helpers/wait-for.ts'
import type { Alone, Case } from '../case.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()
/** Nothing but a fault takes as long, on a busy machine too; and what waits for it should not take long. */
const impatient = { storeTimeout: '1s', drainTimeout: 0 }

/** As if the process that owns the execution had stopped: its heartbeat is gone. */
const bury = ({ database, key }: Alone) =>
  database.pool.query(
    'delete from pawl.processes where id = (select owner from pawl.executions where key = $1)',
    [key()],
  )

/** What comes of it when PostgreSQL is away, or the process that runs the handler. */
export const store: Case[] = [
  {
    row: 'row 1',
    name: 'no byte of the answer leaves before its outcome is committed',
    handle: async (_, run) => {
      await gate.pass()
      return { json: { run } }
    },
    alone: async ({ send, proxy, stored }) => {
      let answered = false
      const first = send({}).finally(() => {
        answered = true
      })
      await gate.reached()
      proxy.freeze()
      await gate.open()
      await new Promise((resolve) => setTimeout(resolve, 150))
      expect([(await stored())?.status, answered]).toEqual(['running', false])
      proxy.restore()
      expect((await first).json).toEqual({ run: 1 })
      expect((await stored())?.status).toBe('done')
    },
  },
  ...[false, true].map(
    (resumable): Case => ({
      row: 'row 2',
      name: `of a process that died while it ran, ${resumable ? 'a resumable request is taken over' : 'the outcome is unknown'}`,
      options: { resumable, wait: 0 },
      handle: async ({ execution }, run) => {
        if (run === 1) await gate.pass()
        return { json: { attempt: execution?.attempt } }
      },
      alone: async (app) => {
        const heir = await app.peer()
        const first = app.send({}).catch(() => null)
        await gate.reached()
        expect((await heir.send({})).json.type).toBe('urn:pawl:problem:in-progress')
        await bury(app)
        const retry = await heir.send({})
        if (resumable) expect(retry.json).toEqual({ attempt: 2 })
        else expect(retry.json.type).toBe('urn:pawl:problem:outcome-unknown')
        await gate.open()
        await first
      },
    }),
  ),
  {
    row: 'row 3',
    name: 'a slow owner that finishes after its takeover answers what was recorded',
    options: { resumable: true },
    handle: async ({ execution }, run) => {
      if (run === 1) await gate.pass()
      return {
        status: run === 1 ? 202 : 201,
        headers: run === 1 ? { 'X-Slow': '1' } : {},
        json: { attempt: execution?.attempt },
      }
    },
    alone: async (app) => {
      const heir = await app.peer()
      const first = app.send({})
      await gate.reached()
      await bury(app)
      expect((await heir.send({})).json).toEqual({ attempt: 2 })
      await gate.open()
      for (const late of [await first, await app.send({}), await heir.send({})]) {
        expect(late.status).toBe(201)
        expect(late.json).toEqual({ attempt: 2 })
        expect(late.headers['x-slow']).toBeUndefined()
        expect(late.headers['idempotent-replayed']).toBe('true')
      }
    },
  },
  ...(['refuse', 'freeze'] as const).map(
    (fault): Case => ({
      row: 'row 15',
      name: `PostgreSQL is away at the claim (${fault}): 503, nothing runs, and it heals`,
      pawl: impatient,
      handle: async (call, run) => ({ json: { run, body: await call.body() } }),
      alone: async ({ send, proxy, runs }) => {
        proxy[fault]()
        if (fault === 'refuse') proxy.cut()
        const refused = await send({ body: { a: 1 } })
        expect(refused.status).toBe(503)
        expect(refused.headers['retry-after']).toBe('2')
        expect(refused.json.detail).toMatch(/was not carried out/)
        expect(runs()).toBe(0)
        proxy.restore()
        const healed = await waitFor('an answer', async () => {
          const answer = await send({ body: { a: 1 } })
          return answer.status === 200 ? answer : null
        })
        expect(healed.json).toEqual({ run: 1, body: { a: 1 } })
      },
    }),
  ),
  {
    row: 'row 15',
    name: 'with onStoreError run the handler runs, unprotected, body and all',
    pawl: impatient,
    options: { onStoreError: 'run' },
    handle: async (call, run) => ({
      json: { run, body: await call.body(), protected: Boolean(call.execution) },
    }),
    alone: async ({ send, proxy }) => {
      const body = { all: 'of it' }
      expect((await send({ key: 'B', body })).json).toEqual({ run: 1, body, protected: true })
      proxy.refuse()
      proxy.cut()
      for (const run of [2, 3]) {
        expect((await send({ body })).json).toEqual({ run, body, protected: false })
      }
    },
  },
  {
    row: 'row 16',
    name: 'PostgreSQL is away at completion: 503, nothing runs twice, and the retry gets the outcome',
    pawl: impatient,
    handle: async () => {
      await gate.pass()
      return { status: 201, headers: { 'X-Order': '7' }, json: { ok: true } }
    },
    alone: async ({ send, proxy, runs }) => {
      const first = send({})
      await gate.reached()
      proxy.refuse()
      proxy.cut()
      await gate.open()
      const refused = await first
      expect(refused.status).toBe(503)
      expect(refused.headers['retry-after']).toBe('2')
      expect(refused.headers['x-order']).toBeUndefined()
      expect(refused.json.detail).toMatch(/was carried out/)
      proxy.restore()
      const retry = await waitFor('the outcome', async () => {
        const answer = await send({})
        return answer.status === 201 ? answer : null
      })
      expect(retry.json).toEqual({ ok: true })
      expect(retry.headers['x-order']).toBe('7')
      expect(runs()).toBe(1)
    },
  },
  {
    row: 'row 16',
    name: 'away at the completion of a body that flows: 503 and no byte of it',
    pawl: impatient,
    options: { maxBody: 10 },
    handle: async () => {
      await gate.pass()
      return {
        headers: { 'Content-Type': 'text/plain' },
        stream: async function* () {
          yield Buffer.from('secret '.repeat(10))
          yield Buffer.from('end')
        },
      }
    },
    alone: async ({ send, proxy }) => {
      const first = send({})
      await gate.reached()
      proxy.refuse()
      proxy.cut()
      await gate.open()
      const refused = await first
      expect(refused.status).toBe(503)
      expect(refused.text).not.toContain('secret')
    },
  },
]
