import { expect } from 'vitest'
import { waitFor } from '../../../helpers/wait-for.ts'
import type { Case, Expectation, Step } from '../case.ts'
import type { Call, Reply } from '../driver.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()

const echo = async (call: Call): Promise<Reply> => ({ json: { body: (await call.body()) ?? null } })

/** Two requests that are not the same. */
function different(row: string, name: string, one: Partial<Step>, other: Partial<Step>): Case {
  return {
    row,
    name: `${name} is another request`,
    handle: (_, run) => ({ json: { run } }),
    steps: [
      { ...one, expect: { status: 200, json: { run: 1 } } },
      { ...other, expect: { status: 422, problem: 'request-mismatch' } },
      { ...one, expect: { replay: true } },
    ],
    runs: 1,
  }
}

const form = (boundary: string, content: string) => ({
  body: `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n${content}\r\n--${boundary}--\r\n`,
  headers: { 'Content-Type': `multipart/form-data; boundary=${boundary}` },
})
const typed = (type: string, body: string | Uint8Array) => ({
  body,
  headers: { 'Content-Type': type },
})
const large = (end: string) => ({ text: 'x'.repeat(2 * 1024 ** 2) + end })

export const requests: Case[] = [
  {
    row: 'row 4',
    name: 'an answer of Pawl itself is never what a retry gets',
    handle: echo,
    steps: [
      { body: { amount: 1 }, expect: { status: 200, json: { body: { amount: 1 } } } },
      { body: { amount: 2 }, expect: { problem: 'request-mismatch' } },
      { body: { amount: 1 }, expect: { replay: true } },
      { body: { amount: 2 }, expect: { problem: 'request-mismatch' } },
      { body: { amount: 1 }, expect: { replay: true } },
    ],
    runs: 1,
  },
  {
    row: 'row 7',
    name: 'the same body under another key runs for itself',
    steps: [
      { key: 'A', body: { a: 1 }, expect: { json: { run: 1 } } },
      { key: 'B', body: { a: 1 }, expect: { json: { run: 2 } } },
    ],
  },
  different('row 8', 'another path', { path: '/eu/pay' }, { path: '/us/pay' }),
  different('row 8', 'another query', { path: '/pay' }, { path: '/pay?a=1' }),
  different('row 8', 'another order of the query', { path: '/?a=1&b=2' }, { path: '/?b=2&a=1' }),
  different(
    'row 9',
    'another JSON body',
    typed('application/json', '{"a":1,"b":[1,2]}'),
    typed('application/json', '{"a":1,"b":[2,1]}'),
  ),
  different('row 9', 'another text', typed('text/plain', 'a 5'), typed('text/plain', 'a 6')),
  different(
    'row 9',
    'another body of bytes',
    typed('application/octet-stream', Buffer.of(0, 0xff, 0xc3)),
    typed('application/octet-stream', Buffer.of(0, 0xfe, 0xc3)),
  ),
  different('row 10', 'another content type', typed('text/plain', 'a'), typed('text/x', 'a')),
  different('row 10', 'a body without content', typed('text/plain', 'a'), {}),
  {
    row: 'row 9',
    name: 'the handler gets the whole body, whatever Pawl has read of it',
    handle: echo,
    steps: [
      { key: 'A', body: { a: [1, 'ü'] }, expect: { json: { body: { a: [1, 'ü'] } } } },
      { key: 'B', ...typed('text/plain', 'grüße'), expect: { json: { body: 'grüße' } } },
    ],
  },
  {
    row: 'row 10',
    name: 'a body of 2 MB counts to its last byte',
    handle: async (call) => ({
      json: { length: ((await call.body()) as { text: string }).text.length },
    }),
    steps: [
      { body: large('a'), expect: { json: { length: 2 * 1024 ** 2 + 1 } } },
      { body: large('b'), expect: { problem: 'request-mismatch' } },
      { body: large('a'), expect: { replay: true } },
    ],
  },
  {
    row: 'row 10',
    name: 'a multipart form is the same with another boundary, and another with another file',
    steps: [
      { ...form('aaaa', 'one'), expect: { status: 200 } },
      { ...form('bbbb', 'one'), expect: { replay: true } },
      { ...form('aaaa', 'two'), expect: { problem: 'request-mismatch' } },
    ],
    runs: 1,
  },
  {
    row: 'row 10',
    name: 'an empty body is a body, of a known length or not',
    steps: [
      { expect: { json: { run: 1 } } },
      { expect: { replay: true } },
      { key: 'B', headers: { 'Transfer-Encoding': 'chunked' }, expect: { json: { run: 2 } } },
      { key: 'B', headers: { 'Transfer-Encoding': 'chunked' }, expect: { replay: true } },
    ],
  },
  {
    row: 'P10',
    name: 'a body over maxRequestBody is refused, and the handler does not run',
    options: { maxRequestBody: 3 },
    steps: [
      {
        ...typed('text/plain', 'four'),
        expect: { status: 413, problem: 'body-too-large', headers: { connection: 'close' } },
      },
      { ...typed('text/plain', 'thr'), expect: { status: 200 } },
    ],
    runs: 1,
  },
  {
    row: 'row 18',
    name: 'a key that has expired is new, and may name another request',
    options: { retention: { completed: 1, unfinished: 1 } },
    handle: echo,
    act: async ({ send }) => {
      await send({ body: { a: 1 } })
      const again = await waitFor('the expiry', async () => {
        const answer = await send({ body: { a: 2 } })
        return answer.status === 200 ? answer : null
      })
      expect(again.json).toEqual({ body: { a: 2 } })
      expect(again.headers['idempotent-replayed']).toBeUndefined()
    },
  },
  {
    row: 'row 20',
    name: 'nothing of the request is stored but its fingerprint',
    act: async ({ send, key, database }) => {
      const secret = 'sk_live_very_secret'
      await send({ body: { secret }, headers: { Authorization: `Bearer ${secret}` } })
      const sql = 'select e::text as row from pawl.executions e where key = $1'
      const { rows } = await database.pool.query(sql, [key()])
      expect(rows[0].row).not.toContain(secret)
      expect(rows[0].row).not.toContain(Buffer.from(secret).toString('hex'))
    },
  },
  {
    row: 'row 22',
    name: 'a mismatch while the first is running is a 422, at once',
    handle: async () => {
      await gate.pass()
      return { json: { done: true } }
    },
    act: async ({ send }) => {
      const first = send({ body: { a: 1 } })
      await gate.reached()
      expect((await send({ body: { a: 2 } })).status).toBe(422)
      await gate.open()
      expect((await first).json).toEqual({ done: true })
    },
  },
  {
    row: 'row 30',
    name: 'GET, HEAD, OPTIONS, PUT and DELETE with a key pass untouched',
    handle: (call, run) => ({ json: { run, execution: call.execution ?? null } }),
    steps: ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'GET'].map((method, at) => ({
      method,
      expect: {
        status: 200,
        ...(method === 'HEAD' ? { text: '' } : { json: { run: at + 1, execution: null } }),
      },
    })),
    runs: 6,
  },
  {
    row: 'row 30',
    name: 'where skip says so, nothing changes',
    options: { skip: (request) => request.header('x-webhook') === 'yes' },
    steps: [1, 2].map((run) => ({
      headers: { 'X-Webhook': 'yes' },
      expect: { json: { run } },
    })),
  },
  {
    row: 'options',
    name: 'the key may come from elsewhere, and the fingerprint be what the app says',
    options: {
      key: (request) => request.header('paypal-request-id'),
      fingerprint: (request) => request.header('x-amount') ?? null,
    },
    steps: [
      paypal('5', { json: { run: 1 } }),
      paypal('5', { replay: true }),
      paypal('6', { problem: 'request-mismatch' }),
      { key: 'B', expect: { json: { run: 2 } } },
      { key: 'B', expect: { json: { run: 3 } } },
    ],
  },
  {
    row: 'options',
    name: 'the handler knows its execution',
    handle: ({ execution }) => ({ json: { ...execution, id: execution?.id.length } }),
    act: async ({ send, key }) => {
      expect((await send({})).json).toMatchObject({ id: 36, scope: '', key: key(), attempt: 1 })
    },
  },
]

function paypal(amount: string, expect: Expectation): Step {
  const headers = { 'PayPal-Request-Id': '{A}', 'X-Amount': amount }
  return { key: null, headers, body: { at: Math.random() }, expect }
}
