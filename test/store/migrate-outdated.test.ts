import { expect, it } from 'vitest'
import { Pawl } from '../../lib/index.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'

const database = withDatabase()

it('refuses to start in a schema that is outdated: schema-outdated, and the hint says what to run', async () => {
  // As an earlier version left it.
  const { rows } = await database.pool.query(
    'delete from pawl.migrations where version = (select max(version) from pawl.migrations) returning version',
  )
  const needed = rows[0].version
  const pawl = new Pawl({ database: database.url, logger: silent })
  const error = await pawl.start().catch((error) => error)
  expect(error).toMatchObject({ name: 'PawlError', code: 'schema-outdated' })
  expect(error.message).toContain(
    `is at version ${needed - 1}; this version of Pawl needs ${needed}`,
  )
  expect(error.hint).toContain('npx pawl migrate')
})
