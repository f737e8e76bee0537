import { describe, expect, it } from 'vitest'
import {
  inSchema,
  parseMigration,
  readMigrations,
} from '../../../lib/store/migrations/migration-files.ts'

const INDEX = 'create index concurrently if not exists steps_kind on pawl.steps (kind)'

describe('a migration file', () => {
  it('without stages is one transaction, and no older code works with it', () => {
    const text = '-- Migration 7.\ncreate table pawl.a (n int);\n'
    expect(parseMigration('007_a.sql', text)).toEqual({
      version: 7,
      name: '007_a.sql',
      compatibleFrom: 7,
      stages: [{ kind: 'transaction', sql: text }],
    })
  })

  it('says its stages, and which code works with it, in comments', () => {
    const { compatibleFrom, stages } = parseMigration(
      '007_a.sql',
      `-- Migration 7.
-- compatible from: 5

-- stage: transaction
alter table pawl.steps add column a int;
-- stage: concurrently
-- For lists; by kind.
${INDEX};
-- stage: concurrently
DROP INDEX CONCURRENTLY IF EXISTS pawl.steps_other
`,
    )
    expect(compatibleFrom).toBe(5)
    expect(stages).toMatchObject([
      { kind: 'transaction' },
      { kind: 'concurrently', action: 'create', index: 'steps_kind', sql: `${INDEX};` },
      { kind: 'concurrently', action: 'drop', index: 'steps_other' },
    ])
    expect(stages[0]?.sql.trim()).toBe('alter table pawl.steps add column a int;')
  })

  it.each([
    ['a kind that there is not', '-- stage: slowly\nselect 1', /"slowly" is no kind/],
    [
      'what is in no stage',
      'select 1;\n-- stage: transaction\nselect 2',
      /precedes the first stage/,
    ],
    ['two indexes in one stage', `-- stage: concurrently\n${INDEX};\n${INDEX};`, /not one "create/],
    [
      'an index that cannot be repeated',
      `-- stage: concurrently\n${INDEX.replace('if not exists ', '')}`,
      /not one/,
    ],
    [
      'an ordinary index',
      `-- stage: concurrently\n${INDEX.replace('concurrently ', '')}`,
      /not one/,
    ],
    ['compatibility with the future', '-- compatible from: 8\nselect 1', /from 1 to 7/],
    ['compatibility with no number', '-- compatible from: 4.1\nselect 1', /from 1 to 7/],
  ])('is refused with %s', (_, text, message) => {
    expect(() => parseMigration('007_a.sql', text)).toThrow(message)
  })

  it('is written for the schema pawl, and runs in any other', () => {
    expect(inSchema('select pawl.now() from pawl.steps, mypawl.a', '$&')).toBe(
      'select "$&".now() from "$&".steps, mypawl.a',
    )
  })
})

it('The versions of the files in migrations/ count from 1 without a gap', async () => {
  const versions = (await readMigrations()).map(({ version }) => version)
  expect(versions.length).toBeGreaterThan(3)
  expect(versions).toEqual(versions.map((_, n) => n + 1))
})
