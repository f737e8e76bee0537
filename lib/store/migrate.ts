/** Creates and updates Pawl's schema in the database, and checks its version. */

import { readdir, readFile } from 'node:fs/promises'
import { PawlError } from '../errors/index.ts'
import type { Database, Query } from './database/database.ts'
import { retryConflicts } from './database/retry-conflicts.ts'

// The same relative path from lib/store and from dist/store.
const MIGRATIONS = new URL('../../migrations/', import.meta.url)

interface Migration {
  version: number
  name: string
}

async function listMigrations(): Promise<Migration[]> {
  const files = (await readdir(MIGRATIONS)).filter((name) => /^\d{3}_.*\.sql$/.test(name)).sort()
  return files.map((name) => ({ version: Number(name.slice(0, 3)), name }))
}

/**
 * Applies the missing migrations, all in one transaction. Safe when many processes start at once: the transaction
 * holds an advisory lock, and the others wait for it.
 * @returns the names of the migrations that this call applied
 */
export async function migrate(db: Database, schema: string): Promise<string[]> {
  const migrations = await listMigrations()
  return retryConflicts(() =>
    db.transaction(async (query) => {
      // A lock of the transaction, not of the session: it works through PgBouncer and is always released.
      await query('select pg_advisory_xact_lock(hashtext($1))', [`pawl migrate ${schema}`])
      const current = await schemaVersion(query, schema)
      rejectNewer(current, migrations, schema)
      // "create schema if not exists" needs the right to create schemas even if the schema exists. An
      // ordinary role may own its schema and have no other rights.
      const [exists] = await query('select 1 from pg_namespace where nspname = $1', [schema])
      if (!exists) await query(`create schema "${schema}"`)
      if (current === 0) {
        await query(`create table if not exists "${schema}".migrations (
          version integer primary key, name text not null, applied_at timestamptz not null default now())`)
      }
      const missing = migrations.filter((migration) => migration.version > current)
      for (const { version, name } of missing) {
        const sql = await readFile(new URL(name, MIGRATIONS), 'utf8')
        await query(sql.replace(/\bpawl\./g, () => `"${schema}".`))
        await query(`insert into "${schema}".migrations (version, name) values ($1::int4, $2)`, [
          version,
          name,
        ])
      }
      return missing.map((migration) => migration.name)
    }),
  )
}

/**
 * Checks that the schema has the version that this version of Pawl needs.
 * @throws PawlError `schema-missing`, `schema-outdated` or `schema-newer`, whose hint says what to run
 */
export async function checkSchema(db: Database, schema: string): Promise<void> {
  const migrations = await listMigrations()
  const current = await schemaVersion(db.query, schema)
  rejectNewer(current, migrations, schema)
  const hint = 'Run `npx pawl migrate`, or give `migrate: true` to new Pawl().'
  if (current === 0) {
    throw new PawlError('schema-missing', `The database has no schema "${schema}" of Pawl.`, hint)
  }
  const latest = migrations.at(-1)?.version ?? 0
  if (current < latest) {
    throw new PawlError(
      'schema-outdated',
      `The schema "${schema}" is at version ${current}; this version of Pawl needs ${latest}.`,
      hint,
    )
  }
}

/** The version of the schema; 0 if the schema does not exist. */
async function schemaVersion(query: Query, schema: string): Promise<number> {
  const [table] = await query('select to_regclass($1)::text', [`"${schema}".migrations`])
  if (!table?.[0]) return 0
  const [row] = await query(`select coalesce(max(version), 0)::int4 from "${schema}".migrations`)
  return row?.[0] as number
}

function rejectNewer(current: number, migrations: Migration[], schema: string): void {
  const latest = migrations.at(-1)?.version ?? 0
  if (current <= latest) return
  throw new PawlError(
    'schema-newer',
    `The schema "${schema}" is at version ${current}; this version of Pawl knows ${latest}.`,
    'Upgrade pawl in this app; an older library must not write into a newer schema.',
  )
}
