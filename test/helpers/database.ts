import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { databaseUrl, TEMPLATE } from './postgres.ts'

/** A database of a test file's own. */
export interface TestDatabase {
  readonly url: string
  /** For the test's own statements. */
  readonly pool: pg.Pool
}

/**
 * Gives the test file a database, copied from the template before its tests and dropped after them.
 * @param options.empty without Pawl's schema
 */
export function withDatabase(options: { empty?: boolean } = {}): TestDatabase {
  const server = process.env.PAWL_TEST_DATABASE_URL as string
  const name = `pawl_test_${randomBytes(6).toString('hex')}`
  const url = databaseUrl(server, name)
  const pool = new pg.Pool({ connectionString: url, max: 5 })
  pool.on('error', () => {})
  const admin = async (sql: string) => {
    const client = new pg.Client({ connectionString: server })
    await client.connect()
    try {
      await client.query(sql)
    } finally {
      await client.end()
    }
  }
  beforeAll(() => admin(`create database ${name} ${options.empty ? '' : `template ${TEMPLATE}`}`))
  afterAll(async () => {
    await pool.end()
    await admin(`drop database if exists ${name} with (force)`)
  })
  return { url, pool }
}
