import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { databaseUrl, TEMPLATE } from './postgres.ts'

/** A database of a test file's own. */
export interface TestDatabase {
  readonly url: string
  /** For the test's own statements. */
  readonly pool: pg.Pool
  /**
   * For the apps of the test, which share it: a connection, and the first statement of each kind on it,
   * cost PostgreSQL more than most tests do.
   */
  readonly apps: pg.Pool
}

const appPools = new Map<string, pg.Pool>()

/** The `apps` of a test database, by its URL; any other has none. */
export function appPool(url: string): pg.Pool | undefined {
  return appPools.get(url)
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
  const apps = new pg.Pool({ connectionString: url, max: 20, application_name: 'pawl' })
  apps.on('error', () => {})
  appPools.set(url, apps)
  // Keeps Pawl's own connections beside the pool open from one test to the next.
  const keeper = new NodePostgres(apps, 10_000, false)
  const admin = async (sql: string) => {
    const client = new pg.Client({ connectionString: server })
    await client.connect()
    try {
      await client.query(sql)
    } finally {
      await client.end()
    }
  }
  const template = options.empty ? 'template1' : TEMPLATE
  const strategy = process.env.PAWL_TEST_STRATEGY
  beforeAll(() => admin(`create database ${name} template ${template} ${strategy}`))
  afterAll(async () => {
    appPools.delete(url)
    // Without waiting: a handler that never ends may hold a connection, which the drop ends.
    void keeper.close()
    void apps.end()
    await pool.end()
    await admin(`drop database if exists ${name} with (force)`)
  })
  return { url, pool, apps }
}
