import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { migrate } from '../../lib/store/migrate.ts'
import { bundle, bundlePrograms } from './bundle.ts'

/** The database that every test file's database is a copy of. */
export const TEMPLATE = 'pawl_template'

/**
 * What the machine's own crash would lose, PostgreSQL's does not: commits are as visible and as ordered
 * as ever. Each test file creates and drops a database, and would wait for the disk: for seconds, once others have
 * written much. Tests that crash PostgreSQL start one of their own. Databases that live for seconds need no vacuum.
 */
export const FAST = [
  'fsync=off',
  'full_page_writes=off',
  'wal_level=minimal',
  'max_wal_senders=0',
  'jit=off',
  'autovacuum=off',
  'update_process_title=off',
].flatMap((setting) => ['-c', setting])

/**
 * Vitest's global setup: a real PostgreSQL for the whole run, the one at DATABASE_URL or an embedded
 * one, and in it a template database with Pawl's schema.
 */
export default async function setup(): Promise<() => Promise<void>> {
  const given = process.env.DATABASE_URL
  const [server] = await Promise.all([
    given ? { url: given, stop: async () => {} } : startPostgres(FAST),
    bundlePrograms(),
  ])
  process.env.PAWL_TEST_DATABASE_URL = server.url
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  await admin.query(`drop database if exists ${TEMPLATE}`)
  await admin.query(`create database ${TEMPLATE}`)
  // Copying a template's files is half the work of logging each of their pages; before PostgreSQL 15 it
  // was the only way.
  const { rows } = await admin.query(`select current_setting('server_version_num')::int as version`)
  process.env.PAWL_TEST_STRATEGY = rows[0].version < 150_000 ? '' : 'strategy file_copy'
  await admin.end()
  const pool = new pg.Pool({ connectionString: databaseUrl(server.url, TEMPLATE), max: 1 })
  await migrate(new NodePostgres(pool, 10_000, false), 'pawl')
  await pool.end()
  return server.stop
}

/** A PostgreSQL of the test's own. */
export interface TestPostgres {
  url: string
  /** Its data directory. */
  directory: string
  stop(): Promise<void>
  /** Ends it as a crash would (immediate mode), and starts it again after `downMs`. */
  crash(downMs?: number): Promise<void>
}

/** Starts an embedded PostgreSQL with its default durability on a free port. */
export async function startPostgres(flags: string[] = []): Promise<TestPostgres> {
  const file = fileURLToPath(new URL('postgres-process.ts', import.meta.url))
  const child = spawn(process.execPath, [await bundle(file), ...flags], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })
  const exited = once(child, 'exit')
  const nextLine = async () => {
    const ended = exited.then(([code]) => {
      throw new Error(`The process of PostgreSQL ended with ${code}.`)
    })
    const [line] = await Promise.race([once(lines, 'line'), ended])
    return line as string
  }
  return {
    ...JSON.parse(await nextLine()),
    stop: async () => {
      child.stdin.end()
      await exited
    },
    crash: async (downMs = 0) => {
      child.stdin.write(`crash ${downMs}\n`)
      await nextLine()
    },
  }
}

export function databaseUrl(serverUrl: string, database: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${database}`
  return url.href
}
