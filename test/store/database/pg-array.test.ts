import type { PGlite as Engine } from '@electric-sql/pglite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Database } from '../../../lib/store/database/database.ts'
import { NodePostgres } from '../../../lib/store/database/node-postgres.ts'
import { type Element, type ElementType, PgArray } from '../../../lib/store/database/pg-array.ts'
import { PGlite } from '../../../lib/store/database/pglite.ts'
import { withDatabase } from '../../helpers/database.ts'
import { openPglite } from '../../helpers/pglite.ts'
import { isProof } from '../../helpers/proof.ts'

const database = withDatabase({ empty: true })
let engine: Engine | undefined
// It keeps the event loop busy for seconds while it starts, so only where it is needed.
beforeAll(async () => {
  if (isProof) engine = await openPglite()
})
afterAll(() => engine?.close())

const bytes = Uint8Array.from({ length: 256 }, (_, n) => n)

/** Type, what goes in, what PostgreSQL says has arrived. */
const cases: [string, ElementType, Element[], (string | null)[]][] = [
  ['bool', 'bool', [true, false, null], ['true', 'false', null]],
  ['int2', 'int2', [0, -32768, 32767, null], ['0', '-32768', '32767', null]],
  ['int4', 'int4', [1, -2147483648, 2147483647], ['1', '-2147483648', '2147483647']],
  [
    'int8, as numbers and as strings',
    'int8',
    [Number.MAX_SAFE_INTEGER, '9223372036854775807', '-9223372036854775808', null],
    ['9007199254740991', '9223372036854775807', '-9223372036854775808', null],
  ],
  [
    'text that arrays in text form would have to escape',
    'text',
    ['', 'null', 'NULL', '"', '\\', '{}', 'a,b', ' ', '\n\t', null],
    ['', 'null', 'NULL', '"', '\\', '{}', 'a,b', ' ', '\n\t', null],
  ],
  ['text in Unicode', 'text', ['ä€😀', '\u{10ffff}', 'é'], ['ä€😀', '\u{10ffff}', 'é']],
  [
    'bytes',
    'bytea',
    [bytes, Buffer.alloc(0), Buffer.from('{"\\'), null],
    [`\\x${Buffer.from(bytes).toString('hex')}`, '\\x', '\\x7b225c', null],
  ],
  [
    'uuids in either case',
    'uuid',
    ['A0EEBC99-9C0B-8EF8-BB6D-6BB9BD380A11', 'a0eebc99-9c0b-8ef8-bb6d-6bb9bd380a12', null],
    ['a0eebc99-9c0b-8ef8-bb6d-6bb9bd380a11', 'a0eebc99-9c0b-8ef8-bb6d-6bb9bd380a12', null],
  ],
  ['only nulls', 'text', [null, null], [null, null]],
  ...(['bool', 'int2', 'int4', 'int8', 'text', 'bytea', 'uuid'] as const).map(
    (type): [string, ElementType, Element[], string[]] => [`no ${type} at all`, type, [], []],
  ),
]

const drivers: [string, () => Database][] = [
  ['node-postgres, in binary', () => new NodePostgres(database.pool, 5000, false)],
  ['PGlite, as text', () => new PGlite(engine as Engine, 10_000)],
]

// What Pawl sends through PGlite is in pglite.test.ts.
describe.each(isProof ? drivers : drivers.slice(0, 1))('arrays through %s', (_, open) => {
  it.each(cases)('%s', async (_, type, items, arrived) => {
    const rows = await open().query(
      `select coalesce(array_agg(x::text order by n), '{}')
       from unnest($1::${type}[]) with ordinality as t (x, n)`,
      [new PgArray(type, items)],
    )
    expect(rows[0]?.[0]).toEqual(arrived)
  })

  it('bytes come back as bytes', async () => {
    const rows = await open().query('select ($1::bytea[])[1]', [new PgArray('bytea', [bytes])])
    expect(rows.map(([value]) => [...(value as Uint8Array)])).toEqual([[...bytes]])
  })
})
