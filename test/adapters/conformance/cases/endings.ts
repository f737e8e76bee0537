import { expect } from 'vitest'
import { waitFor } from '../../../helpers/wait-for.ts'
import type { Case } from '../case.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()
const text = { 'Content-Type': 'text/plain; charset=utf-8' }

/** How handlers end, and how clients do. */
export const endings: Case[] = [
  {
    row: 'row 14',
    name: 'the handler goes on when its client hangs up, and the retry gets the outcome',
    handle: async (_, run) => {
      await gate.pass()
      return { status: 201, json: { run } }
    },
    act: async ({ send, runs }) => {
      const client = new AbortController()
      const first = send({}, client.signal)
      await gate.reached()
      client.abort()
      await expect(first).rejects.toThrow()
      const retry = send({})
      await gate.open()
      expect((await retry).json).toEqual({ run: 1 })
      expect((await retry).headers['idempotent-replayed']).toBe('true')
      expect(runs()).toBe(1)
    },
  },
  {
    row: 'row 14',
    name: 'a client that hangs up in the middle of a stream leaves a whole answer to its retry',
    handle: () => ({
      headers: text,
      stream: async function* () {
        yield Buffer.from('one ')
        await gate.pass()
        yield Buffer.from('two')
      },
    }),
    act: async ({ send, stored }) => {
      const client = new AbortController()
      const first = send({}, client.signal)
      await gate.reached()
      client.abort()
      await expect(first).rejects.toThrow()
      await gate.open()
      await waitFor('the outcome', async () => (await stored())?.status === 'done')
      expect((await send({})).text).toBe('one two')
    },
  },
  {
    row: 'row 14',
    name: 'a duplicate that hangs up while it waits takes nothing away',
    handle: async () => {
      await gate.pass()
      return { json: { fine: true } }
    },
    act: async ({ send }) => {
      const first = send({})
      await gate.reached()
      const client = new AbortController()
      const second = send({}, client.signal)
      await new Promise((resolve) => setTimeout(resolve, 50)) // It hangs up before or while it waits.
      client.abort()
      await expect(second).rejects.toThrow()
      const third = send({})
      await gate.open()
      expect((await first).json).toEqual({ fine: true })
      expect((await third).json).toEqual({ fine: true })
    },
  },
  {
    row: 'row 24',
    name: 'a 5xx is stored and replayed',
    handle: (_, run) => ({ status: 503, json: { run } }),
    steps: [{ expect: { status: 503, json: { run: 1 } } }, { expect: { replay: true } }],
    runs: 1,
  },
  {
    row: 'row 24',
    name: 'with resumable a 5xx is sent, and the retry runs again',
    options: { resumable: true },
    handle: ({ execution }, run) => ({
      status: run === 1 ? 503 : 200,
      json: { attempt: execution?.attempt },
    }),
    steps: [
      { expect: { status: 503, json: { attempt: 1 } } },
      { expect: { status: 200, json: { attempt: 2 } } },
    ],
    act: async ({ send, runs }) => {
      expect((await send({})).json).toEqual({ attempt: 2 })
      expect(runs()).toBe(2)
    },
  },
  ...[401, 403, 408, 425, 429].map(
    (status): Case => ({
      row: 'row 24',
      name: `a ${status} is never stored`,
      handle: (_, run) => ({ status: run === 1 ? status : 201, json: {} }),
      steps: [{ expect: { status } }, { expect: { status: 201 } }],
    }),
  ),
  {
    row: 'row 29',
    name: 'a handler that never answers is ended by the timeout',
    options: { timeout: 100, wait: 0 },
    handle: () => new Promise(() => {}),
    steps: [
      { expect: { status: 504, problem: 'timed-out', headers: { 'retry-after': '5' } } },
      { expect: { status: 409, problem: 'outcome-unknown' } },
    ],
    runs: 1,
  },
  {
    row: 'row 29',
    name: 'an answer that comes after the timeout still counts',
    options: { timeout: 100, wait: 0 },
    handle: async () => {
      await gate.pass()
      return { status: 201, headers: { 'X-Late': 'yes' }, json: { late: true } }
    },
    act: async ({ send, runs }) => {
      const first = await send({})
      expect(first.status).toBe(504)
      expect(first.headers['x-late']).toBeUndefined()
      await gate.open()
      const late = await waitFor('the late answer', async () => {
        const response = await send({})
        return response.status === 201 ? response : null
      })
      expect(late.json).toEqual({ late: true })
      expect(late.headers['x-late']).toBe('yes')
      expect(late.headers['idempotent-replayed']).toBe('true')
      expect(runs()).toBe(1)
    },
  },
  {
    row: 'row 29',
    name: 'with resumable the retry after a timeout runs the handler again',
    options: { timeout: 100, resumable: true },
    handle: ({ execution }, run) =>
      run > 1 ? { json: { attempt: execution?.attempt } } : new Promise(() => {}),
    steps: [{ expect: { status: 504 } }, { expect: { status: 200, json: { attempt: 2 } } }],
  },
  {
    row: 'row 32',
    name: 'a handler that throws: what the error handler answers is stored and replayed',
    handle: () => {
      throw new Error('boom')
    },
    steps: [{ expect: { status: 500 } }, { expect: { replay: true } }],
    runs: 1,
  },
  {
    row: 'row 32',
    name: 'a handler that throws on a resumable route runs again',
    options: { resumable: true },
    handle: (_, run) => {
      if (run === 1) throw new Error('boom')
      return { json: { run } }
    },
    steps: [{ expect: { status: 500 } }, { expect: { status: 200, json: { run: 2 } } }],
  },
  {
    row: 'IETF 5',
    name: 'a duplicate gets the answer of the first when it comes in time',
    handle: async (_, run) => {
      await gate.pass()
      return { json: { run } }
    },
    act: async ({ send, runs }) => {
      const first = send({})
      await gate.reached()
      const others = [send({}), send({})]
      await new Promise((resolve) => setTimeout(resolve, 50)) // They arrive before or after its end.
      await gate.open()
      const body = (await first).body
      for (const other of await Promise.all(others)) expect(other.body).toEqual(body)
      expect(runs()).toBe(1)
    },
  },
]
