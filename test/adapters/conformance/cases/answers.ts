import { gzipSync } from 'node:zlib'
import { expect } from 'vitest'
import type { Case, Expectation } from '../case.ts'
import type { Reply } from '../driver.ts'
import { Gate } from '../gate.ts'

const gate = new Gate()
const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 7) % 256))
const packed = gzipSync('packed '.repeat(50))

/** One answer, sent and replayed: the handler runs once. */
function twice(row: string, name: string, reply: Reply, expectation: Expectation): Case {
  return {
    row,
    name: `${name} is sent and replayed byte for byte, without the handler`,
    handle: () => reply,
    steps: [{ expect: expectation }, { expect: { ...expectation, replay: true } }],
    runs: 1,
  }
}

async function* parts(...chunks: string[]) {
  for (const chunk of chunks) {
    await new Promise((resolve) => setImmediate(resolve))
    yield Buffer.from(chunk)
  }
}

const text = { 'Content-Type': 'text/plain; charset=utf-8' }
const binary = { 'Content-Type': 'application/octet-stream' }

export const answers: Case[] = [
  twice(
    'row 6',
    'a JSON error',
    { status: 400, json: { error: 'no' } },
    {
      status: 400,
      json: { error: 'no' },
      headers: { 'content-type': /^application\/json/ },
    },
  ),
  twice(
    'row 6',
    'text',
    { headers: text, text: 'hällo' },
    {
      status: 200,
      text: 'hällo',
      headers: { 'content-type': /^text\/plain/ },
    },
  ),
  twice(
    'row 6',
    'a 404',
    { status: 404, headers: text, text: 'not here' },
    {
      status: 404,
      text: 'not here',
    },
  ),
  twice('row 12', 'bytes', { headers: binary, bytes }, { bytes }),
  twice(
    'row 12',
    'a compressed body',
    {
      headers: { 'Content-Type': 'text/plain', 'Content-Encoding': 'gzip' },
      bytes: packed,
    },
    { bytes: packed, headers: { 'content-encoding': 'gzip' } },
  ),
  twice(
    'row 13',
    'JSON with big integers',
    {
      headers: { 'Content-Type': 'application/json' },
      text: '{"n": 12345678901234567890, "x": 1.0}',
    },
    { text: '{"n": 12345678901234567890, "x": 1.0}' },
  ),
  twice(
    'row 11',
    'a stream',
    {
      status: 202,
      headers: { ...text, 'X-One': '1' },
      stream: () => parts('one ', 'two ', 'drei'),
    },
    { status: 202, text: 'one two drei', headers: { 'x-one': '1' } },
  ),
  twice('row 11', 'an empty stream', { headers: binary, stream: () => parts() }, { text: '' }),
  twice('row 5', 'an empty 204', { status: 204 }, { status: 204, text: '' }),
  twice('row 5', 'an empty 200', {}, { status: 200, text: '' }),
  twice(
    'row 5',
    'a 304',
    { status: 304, headers: { ETag: '"x"' } },
    {
      status: 304,
      text: '',
      headers: { etag: '"x"' },
    },
  ),
  twice(
    'row 19',
    'a redirect',
    { status: 303, headers: { Location: '/elsewhere' } },
    {
      status: 303,
      headers: { location: '/elsewhere' },
    },
  ),
  twice(
    'row 19',
    'a header on two lines',
    { headers: { Link: ['<a>', '<b>'] }, json: {} },
    {
      headers: { link: '<a>, <b>' },
    },
  ),
  {
    row: 'row 5',
    name: 'HEAD, where the route asks for it',
    options: { methods: ['HEAD'] },
    handle: () => ({ status: 202, headers: { 'X-Kept': 'yes' } }),
    steps: [
      { method: 'HEAD', expect: { status: 202, text: '', headers: { 'x-kept': 'yes' } } },
      { method: 'HEAD', expect: { replay: true } },
    ],
    runs: 1,
  },
  {
    row: 'row 19',
    name: 'several cookies stay several, and are not replayed',
    handle: () => ({ cookies: ['a=1', 'b=2'], headers: { 'X-Kept': 'yes' }, json: {} }),
    act: async ({ send }) => {
      expect((await send({})).headers['set-cookie']).toEqual(['a=1', 'b=2'])
      const replay = await send({})
      expect(replay.headers['set-cookie']).toBeUndefined()
      expect(replay.headers['x-kept']).toBe('yes')
    },
  },
  {
    row: 'row 19',
    name: 'cookies are replayed where the route says so',
    options: { storedHeaders: () => true },
    handle: () => ({ cookies: ['a=1', 'b=2'], json: {} }),
    steps: [{ expect: { status: 200 } }, { expect: { replay: true } }],
    act: async ({ send }) => expect((await send({})).headers['set-cookie']).toEqual(['a=1', 'b=2']),
  },
  ...(['a stream', 'a body'] as const).map(
    (what): Case => ({
      row: 'row 25',
      name: `${what} over maxBody is sent whole, and replays say that it was not kept`,
      options: { maxBody: '10kb' },
      handle: () => ({
        status: 201,
        headers: { ...text, 'X-Order': '7' },
        ...(what === 'a body'
          ? { text: 'x'.repeat(64 * 1024) }
          : { stream: () => parts(...Array.from({ length: 64 }, () => 'x'.repeat(1024))) }),
      }),
      steps: [
        { expect: { status: 201, text: 'x'.repeat(64 * 1024), headers: { 'x-order': '7' } } },
        {
          expect: {
            status: 201,
            problem: 'body-not-kept',
            headers: { 'x-order': '7', 'idempotent-replayed': 'true' },
          },
        },
      ],
      runs: 1,
    }),
  ),
  {
    row: 'row 11',
    name: 'an event stream flows at once, its outcome committed before its first byte',
    handle: () => ({
      headers: { 'Content-Type': 'text/event-stream' },
      stream: () => events(),
    }),
    act: async ({ url, key, stored, send, runs }) => {
      const headers = { 'Idempotency-Key': key() }
      const response = await fetch(url, { method: 'POST', headers })
      const reader = response.body!.getReader()
      const read = async () => Buffer.from((await reader.read()).value!).toString()
      expect(await read()).toBe('data: one\n\n')
      expect(await stored()).toMatchObject({ status: 'done', body_kept: false })
      await gate.open()
      expect(await read()).toBe('data: two\n\n')
      expect((await reader.read()).done).toBe(true)
      const replay = await send({})
      expect(replay.json.type).toBe('urn:pawl:problem:body-not-kept')
      expect(runs()).toBe(1)
    },
  },
]

async function* events() {
  yield Buffer.from('data: one\n\n')
  await gate.pass()
  yield Buffer.from('data: two\n\n')
}
