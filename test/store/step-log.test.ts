import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { encodeValue } from '../../lib/engine/values/value-codec.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, openStore } from '../helpers/store.ts'

const database = withDatabase()

let deep = '1'
for (let i = 0; i < 50_000; i++) deep = `[${deep}]`

const stored: [string, Buffer | null, unknown][] = [
  ['nothing', null, null],
  ['JSON', encodeValue({ a: [1, 'x', null] }), { a: [1, 'x', null] }],
  ['null', encodeValue(null), null],
  [
    'a Date and a Map',
    encodeValue({ at: new Date(0), m: new Map([[1n, 2]]) }),
    { at: '1970-01-01T00:00:00.000Z', m: [['1', 2]] },
  ],
  [
    'an error',
    encodeValue(new TypeError('x')),
    expect.objectContaining({ type: 'TypeError', message: 'x' }),
  ],
  ['NUL', encodeValue('a\0b'), expect.stringContaining('no jsonb')],
  ['a lone surrogate', encodeValue({ a: '\ud800' }), expect.stringContaining('no jsonb')],
  ['empty', Buffer.alloc(0), expect.stringContaining('0 bytes')],
  ['sealed', Buffer.from('\u0002\u0003key1234567890'), '<15 bytes, encrypted with key key>'],
  ['sealed and cut off', Buffer.from([2]), expect.stringContaining('1 bytes')],
  [
    'sealed, with a key of no text',
    Buffer.from([2, 2, 255, 254, 0]),
    expect.stringContaining('bytes'),
  ],
  ['rich and cut off', Buffer.from([1]), expect.stringContaining('1 bytes')],
  ['rich without its json', Buffer.concat([Buffer.of(1), Buffer.from('{}')]), null],
  ['no UTF-8', Buffer.from([255, 254]), expect.stringContaining('2 bytes')],
  ['half of some JSON', Buffer.from('{"a":'), expect.stringContaining('no jsonb')],
  ['a huge number', Buffer.from(`1e${'9'.repeat(10)}`), expect.stringContaining('no jsonb')],
  ['too deep', Buffer.from(deep), expect.stringContaining('no jsonb')],
  ['random bytes', Buffer.from(randomUUID().replaceAll('-', ''), 'hex'), expect.anything()],
]

it('the views never fail, whatever is stored', async () => {
  const test = await openStore(database.url)
  const claim = claimOf()
  const { id } = await claimNew(test, claim)
  for (const [i, [name, bytes]] of stored.entries()) {
    for (const column of ['output', 'error']) {
      await database.pool.query(
        `insert into pawl.steps (execution_id, life, name, occurrence, position, kind, ${column}, attempt,
           started_at, completed_at)
         select id, created_at, $2, 1, $3, 'step', $4, 1, created_at, created_at
         from pawl.executions where id = $1`,
        [id, `${name} as ${column}`, i, bytes],
      )
    }
  }
  const { rows } = await database.pool.query('select * from pawl.step_log where key = $1', [
    claim.key,
  ])
  expect(rows).toHaveLength(stored.length * 2)
  for (const [name, , shown] of stored) {
    expect(rows.find((row) => row.name === `${name} as output`).output, name).toEqual(shown)
    expect(rows.find((row) => row.name === `${name} as error`).error, name).toEqual(shown)
  }
  for (const [name, bytes] of stored) {
    await database.pool.query(
      `update pawl.executions set response_headers = $2, response_body = $2 where id = $1`,
      [id, bytes],
    )
    const log = await database.pool.query('select * from pawl.execution_log')
    expect(log.rows, name).toHaveLength(1)
  }
})

it('a compensation shows under the name and occurrence of its step', async () => {
  const test = await openStore(database.url)
  const claim = claimOf()
  const { id } = await claimNew(test, claim)
  await database.pool.query(
    `insert into pawl.steps (execution_id, life, name, occurrence, position, kind, attempt, started_at)
     select id, created_at, 'charge', n, n, 'compensation', 1, created_at
     from pawl.executions, unnest(array[-2, 2]) n where id = $1`,
    [id],
  )
  const { rows } = await database.pool.query(
    'select name, occurrence from pawl.step_log where key = $1',
    [claim.key],
  )
  expect(rows).toEqual([
    { name: 'charge', occurrence: 2 },
    { name: 'charge', occurrence: 2 },
  ])
})
