import pg from 'pg'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { migrate } from '../../lib/store/migrate.ts'
import {
  type Migration,
  parseMigration,
  readMigrations,
} from '../../lib/store/migrations/migration-files.ts'
import { afterEachTest } from './cleanup.ts'
import type { TestDatabase } from './database.ts'

/** The name of the file of the migration after the present ones. */
export async function nextName(what: string): Promise<string> {
  const present = await readMigrations()
  return `${String(present.length + 1).padStart(3, '0')}_${what}.sql`
}

/** The migrations of a version of Pawl that has one more. */
export async function withNext(text: string): Promise<{ all: Migration[]; next: Migration }> {
  const next = parseMigration(await nextName('next'), text)
  return { all: [...(await readMigrations()), next], next }
}

/** A logger that keeps what it gets at `info`. */
export function progressLog() {
  const lines: string[] = []
  return { lines, debug() {}, warn() {}, info: (message: string) => void lines.push(message) }
}

/** Connections and schemas for tests of migrations in a database of the file's own. */
export function withSchemas(database: TestDatabase) {
  const pools: pg.Pool[] = []
  const clients: pg.Client[] = []
  let schemas = 0

  afterEachTest(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()))
    await Promise.all(pools.splice(0).map((own) => own.end()))
  })

  /** Opens the database as a process of its own would. */
  function open(url: string = database.url, timeoutMs = 10_000): NodePostgres {
    const own = new pg.Pool({ connectionString: url })
    pools.push(own)
    return new NodePostgres(own, timeoutMs, false)
  }

  /** Opens a connection that is closed after the test. */
  async function connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: database.url })
    client.on('error', () => {})
    clients.push(client)
    await client.connect()
    return client
  }

  return {
    open,
    connect,

    /** A schema as the present version makes it. */
    async presentSchema(db = open()): Promise<string> {
      const schema = `present_${++schemas}`
      await migrate(db, schema)
      return schema
    },

    /**
     * A transaction that has read a table and stays open. It keeps ALTER TABLE from that table, and lets each build
     * of an index wait, since it is older.
     */
    async openTransaction(table: string): Promise<{ pid: number; end(): Promise<void> }> {
      const client = await connect()
      await client.query(`begin isolation level repeatable read; select from ${table} limit 1`)
      const { rows } = await client.query('select pg_backend_pid() as pid')
      return { pid: rows[0].pid, end: () => client.end() }
    },
  }
}
