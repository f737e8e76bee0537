import { expect } from 'vitest'
import { executionId } from '../../../../lib/engine/execution-id.ts'
import type { RawResponse } from '../../../helpers/request.ts'
import { waitFor } from '../../../helpers/wait-for.ts'
import type { Case, Running } from '../case.ts'
import type { Call, Options, Reply } from '../driver.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()

const slow = async (_: Call, run: number): Promise<Reply> => {
  await gate.pass()
  return { status: 201, headers: { 'X-Late': 'yes' }, json: { run } }
}

const options: Options = { resumable: true, statusUrl: '/operations/:id', wait: 0 }
const always: Options = { ...options, respondAsyncAfter: 1 }
const atOnce = { headers: { Prefer: 'respond-async, wait=0' } }

function expectAccepted(answer: RawResponse, app: Running, name?: string): void {
  const id = executionId('', app.key(name))
  expect(answer.status).toBe(202)
  expect(answer.json).toEqual({ id, status: 'running', href: `/operations/${id}` })
  expect(answer.headers).toMatchObject({
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
    location: `/operations/${id}`,
    'retry-after': '1',
  })
  expect(answer.headers['x-late']).toBeUndefined()
  expect(answer.headers['idempotent-replayed']).toBeUndefined()
}

/** The response of the handler, once it is there. */
const final = ({ send }: Running) =>
  waitFor('the outcome', async () => {
    const response = await send({})
    return [202, 409].includes(response.status) ? null : response
  })

/** Answered before the handler: RFC 7240, and the option respondAsyncAfter. */
export const asynchronous: Case[] = [
  {
    row: 'RFC 7240',
    name: 'a client that prefers it gets 202, the handler goes on, and its answer is the outcome',
    options,
    handle: slow,
    act: async (app) => {
      const first = await app.send(atOnce)
      expectAccepted(first, app)
      expect(first.headers['preference-applied']).toBe('respond-async')
      expect(await app.stored()).toMatchObject({ status: 'running' })
      await gate.open()
      const outcome = await final(app)
      expect(outcome.status).toBe(201)
      expect(outcome.json).toEqual({ run: 1 })
      expect(outcome.headers).toMatchObject({ 'x-late': 'yes', 'idempotent-replayed': 'true' })
      // Nothing of the 202 is in it.
      for (const name of ['location', 'retry-after', 'preference-applied', 'cache-control']) {
        expect(outcome.headers[name]).toBeUndefined()
      }
      expect((await app.send(atOnce)).body).toEqual(outcome.body)
      expect(app.runs()).toBe(1)
    },
  },
  {
    row: 'RFC 7240',
    name: 'a handler that is fast enough answers inline',
    options: { ...options, respondAsyncAfter: '1 minute' },
    steps: [
      {
        headers: { Prefer: 'respond-async, wait=60' },
        expect: { status: 200, json: { run: 1 }, headers: { 'preference-applied': undefined } },
      },
      { key: 'B', expect: { status: 200, json: { run: 2 } } },
    ],
    runs: 2,
  },
  {
    row: 'RFC 7240',
    name: 'respondAsyncAfter: every client gets 202, and no preference was applied',
    options: always,
    handle: slow,
    act: async (app) => {
      const first = await app.send({ headers: { Prefer: 'wait=60' } })
      expectAccepted(first, app)
      expect(first.headers['preference-applied']).toBeUndefined()
      await gate.open()
      expect((await final(app)).status).toBe(201)
    },
  },
  {
    row: 'RFC 7240',
    name: 'the same key while it runs: 202 to whom prefers it, in each process, else 409',
    options,
    handle: slow,
    alone: async (app) => {
      const first = app.send({})
      await gate.reached()
      const peer = await app.peer()
      for (const { send } of [app, peer]) {
        expectAccepted(await send(atOnce), app)
        expect((await send({})).status).toBe(409)
      }
      const patient = app.send({ headers: { Prefer: 'respond-async, wait=60' } })
      await gate.open()
      expect((await first).status).toBe(201)
      expect((await patient).body).toEqual((await first).body)
      expect(app.runs()).toBe(1)
    },
  },
  ...(
    [
      ['on a route that is not resumable', { ...options, resumable: undefined as never }, {}],
      ['without a statusUrl', { resumable: true }, {}],
      ['on a route that is a transaction', { ...options, transaction: true }, {}],
      ['if it is malformed', options, { Prefer: 'respond-async, wait=0, "' }],
      ['if it says something else', options, { Prefer: 'return=minimal, respond-async=no' }],
    ] as const
  ).map(
    ([when, options, headers]): Case => ({
      row: 'RFC 7240',
      name: `the preference is ignored ${when}`,
      options,
      handle: slow,
      act: async ({ send }) => {
        const first = send({ headers: { ...atOnce.headers, ...headers } })
        await gate.open()
        expect((await first).status).toBe(201)
      },
    }),
  ),
  {
    row: 'RFC 7240',
    name: 'a stream that begins after the 202 is stored whole',
    options: always,
    handle: async () => {
      await gate.pass()
      return {
        headers: { 'Content-Type': 'text/plain; charset=utf-8' },
        stream: async function* () {
          for (let i = 0; i < 20; i++) {
            yield Buffer.alloc(10_000, 'a')
            await new Promise(setImmediate)
          }
        },
      }
    },
    act: async (app) => {
      expectAccepted(await app.send({}), app)
      await new Promise((resolve) => setTimeout(resolve, 50)) // Node has closed the response.
      await gate.open()
      expect((await final(app)).text).toBe('a'.repeat(200_000))
    },
  },
  {
    row: 'RFC 7240',
    name: 'what fails after the 202 is not stored, and the retry runs it again',
    options: always,
    handle: async (call, run) => {
      if (run === 1) await gate.pass()
      return run === 1 ? { status: 503, json: {} } : { json: { attempt: call.execution?.attempt } }
    },
    act: async (app) => {
      expectAccepted(await app.send({}), app)
      await gate.open()
      await waitFor('the release', async () => (await app.stored())?.status === 'released')
      const retry = await final(app)
      expect(retry.json).toEqual({ attempt: 2 })
    },
  },
  {
    row: 'RFC 7240',
    name: 'the timeout still counts for the handler, and its late answer too',
    options: { ...always, timeout: 200 },
    handle: slow,
    act: async (app) => {
      expectAccepted(await app.send({}), app)
      await waitFor('the release', async () => (await app.stored())?.status === 'released')
      await gate.open()
      await waitFor('the outcome', async () => (await app.stored())?.status === 'done')
      expect((await app.send({})).json).toEqual({ run: 1 })
    },
  },
]
