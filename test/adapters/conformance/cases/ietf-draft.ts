import { expect } from 'vitest'
import { executionId } from '../../../../lib/engine/execution-id.ts'
import type { Case, Step } from '../case.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()
const scoped = {
  scope: (request: { header(name: string): string | undefined }) =>
    request.header('x-user') ?? 'nobody',
}
const refused = (lines: string[]): Step => ({
  lines,
  expect: { status: 400, problem: 'key-malformed', text: /must/ },
})
// One byte for each character, as it goes over the wire.
const wire = (value: string) => Buffer.from(value).toString('latin1')

/** draft-ietf-httpapi-idempotency-key-header-07, by the numbers of docs/edge-cases.md. */
export const ietfDraft: Case[] = [
  {
    row: 'IETF 1',
    name: 'the value is a structured-field string whose parameters are ignored',
    options: scoped,
    steps: [
      { lines: ['"{A} \\"x\\" \\\\"'], expect: { json: { run: 1 } } },
      { lines: ['"{A} \\"x\\" \\\\"; a=1; b'], expect: { replay: true } },
    ],
    act: async ({ key, pawl }) => {
      const name = { scope: 'nobody', key: `${key()} "x" \\` }
      expect((await pawl.find(name))?.id).toBe(executionId(name.scope, name.key))
    },
  },
  {
    row: 'row 21',
    name: '"abc", "abc";v=1 and abc are one key',
    steps: [
      { lines: ['{A}'], expect: { json: { run: 1 } } },
      { lines: ['"{A}"'], expect: { replay: true } },
      { lines: ['"{A}";v=1'], expect: { replay: true } },
    ],
  },
  {
    row: 'IETF 2',
    name: 'what is no string is a 400 that names the rule (row 28)',
    steps: [
      ...['"open', '42', '"a", "b"', '(a)', '?0', 'a b', '"a\tb"', `"${'x'.repeat(256)}"`].map(
        (value) => refused([value]),
      ),
      refused([wire('späth')]),
      refused(['']),
      refused(['""']),
    ],
    runs: 0,
  },
  {
    row: 'IETF 2',
    name: 'two header lines are a 400 (row 28)',
    steps: [refused(['"a"', '"b"']), refused(['"a"', '"a"'])],
    runs: 0,
  },
  {
    row: 'IETF 2',
    name: 'strict refuses the bare token as well',
    options: { strict: true },
    steps: [
      { lines: ['{A}'], expect: { status: 400, problem: 'key-malformed', text: /double quotes/ } },
      { lines: ['"{A}"'], expect: { status: 200, json: { run: 1 } } },
    ],
  },
  {
    row: 'IETF 3',
    name: 'missing where it is required is a 400 problem',
    options: { required: true },
    steps: [{ key: null, expect: { status: 400, problem: 'key-missing', text: /UUID/ } }],
    runs: 0,
  },
  {
    row: 'IETF 4',
    name: 'missing where it is optional is processed as ever',
    steps: [
      { key: null, expect: { status: 200, json: { run: 1 } } },
      { key: null, expect: { status: 200, json: { run: 2 } } },
    ],
  },
  {
    row: 'IETF 5',
    name: 'another payload is a 422, during processing a 409, both a 422',
    options: { wait: 0 },
    handle: async () => {
      await gate.pass()
      return { json: { slow: true } }
    },
    act: async ({ send }) => {
      const first = send({ body: { a: 1 } })
      await gate.reached()
      const during = await send({ body: { a: 1 } })
      expect(during.status).toBe(409)
      expect(during.json.type).toBe('urn:pawl:problem:in-progress')
      expect(during.headers['retry-after']).toBe('1')
      expect((await send({ body: { a: 2 } })).status).toBe(422)
      await gate.open()
      await first
      const after = await send({ body: { a: 2 } })
      expect(after.json.type).toBe('urn:pawl:problem:request-mismatch')
    },
  },
  ...[201, 400].map(
    (status): Case => ({
      row: 'IETF 6',
      name: `a retry after completion gets the same result, a ${status}`,
      handle: (_, run) => ({ status, json: { run } }),
      steps: [{ expect: { status, json: { run: 1 } } }, { expect: { replay: true } }],
    }),
  ),
  {
    row: 'IETF 7',
    name: 'the format is checked before any look-up',
    alone: async ({ pawl, send }) => {
      await pawl.stop() // There is nothing to look up any more.
      expect((await send({ lines: ['"open'] })).status).toBe(400)
    },
  },
  {
    row: 'IETF 8',
    name: 'two principals with one key never cross, by their scope',
    options: scoped,
    steps: [
      { headers: { 'X-User': 'alice' }, expect: { json: { run: 1 } } },
      { headers: { 'X-User': 'bob' }, expect: { json: { run: 2 } } },
      { headers: { 'X-User': 'alice' }, expect: { replay: true } },
    ],
  },
  {
    row: 'IETF 8',
    name: 'two principals with one key never cross, by their credentials (P6)',
    handle: (_, run) => ({ headers: { 'X-Secret': 'for alice' }, json: { run } }),
    steps: [
      { headers: { Authorization: 'Bearer alice' }, expect: { json: { run: 1 } } },
      ...[{ Authorization: 'Bearer bob' }, { Cookie: 'session=bob' }, {}].map(
        (headers): Step => ({
          headers,
          expect: { problem: 'request-mismatch', headers: { 'x-secret': undefined } },
        }),
      ),
      { headers: { Authorization: 'Bearer alice' }, expect: { replay: true } },
    ],
    runs: 1,
  },
  {
    row: 'IETF 9',
    name: 'types are stable, and each says whether to retry',
    alone: async ({ pawl, send }) => {
      await pawl.stop()
      const answer = await send({})
      expect(answer.status).toBe(503)
      expect(answer.headers['retry-after']).toBe('2')
      expect(answer.headers.connection).toBe('close')
      expect(answer.json.type).toBe('urn:pawl:problem:store-unavailable')
    },
  },
]
