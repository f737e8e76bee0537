import { expect, it, vi } from 'vitest'
import { Pawl } from '../../lib/index.ts'
import { silent } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'

// A Pawl of the future, that has one migration more than the database.
vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof import('node:fs/promises')>()
  return {
    ...fs,
    readdir: async (folder: string) => [...(await fs.readdir(folder)), '099_future.sql'],
  }
})

const database = withDatabase()

it('refuses to start in a schema that is outdated: schema-outdated, and the hint says what to run', async () => {
  const pawl = new Pawl({ database: database.url, logger: silent })
  const error = await pawl.start().catch((error) => error)
  expect(error).toMatchObject({ name: 'PawlError', code: 'schema-outdated' })
  expect(error.message).toContain('this version of Pawl needs 99')
  expect(error.hint).toContain('npx pawl migrate')
})
