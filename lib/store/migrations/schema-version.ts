/** Checks whether this version of Pawl can work with the schema that it finds. */

import { PawlError } from '../../errors/index.ts'
import type { Database, Query } from '../database/database.ts'
import { type Migration, readMigrations } from './migration-files.ts'

/** A migration that the schema has, or that is being applied to it. */
export interface RecordedMigration {
  version: number
  compatibleFrom: number
  /** How many of its stages are done. */
  stages: number
  isApplied: boolean
  /** The process that applies it: host and process id. Null if no process has a lease that is not expired. */
  applier: string | null
}

/** Reads which migrations the schema has; none if the schema does not exist. */
export async function recordedMigrations(
  query: Query,
  schema: string,
): Promise<RecordedMigration[]> {
  // Not to_regclass: in a transaction that has waited for an advisory lock, it may know nothing yet of a schema that
  // the lock's holder has created. Reading a table makes PostgreSQL process the invalidations of its caches.
  const [table] = await query(
    `select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'migrations'`,
    [schema],
  )
  if (!table) return []
  const rows = await query(`
    select version, compatible_from, stages, applied_at is not null,
      case when expires_at > clock_timestamp() then host || ', process ' || pid end
    from "${schema}".migrations order by version`)
  return rows.map(([version, compatibleFrom, stages, isApplied, applier]) => ({
    version: version as number,
    compatibleFrom: compatibleFrom as number,
    stages: stages as number,
    isApplied: isApplied as boolean,
    applier: applier as string | null,
  }))
}

/** The first migration that is not applied, or not completely; undefined if there is none. */
export function firstMissing(
  recorded: readonly RecordedMigration[],
  migrations: readonly Migration[],
): Migration | undefined {
  const applied = new Set(recorded.filter((row) => row.isApplied).map((row) => row.version))
  return migrations.find(({ version }) => !applied.has(version))
}

/**
 * Checks that the schema has what this version of Pawl needs. The schema may be newer, if each of its newer
 * migrations is compatible with this version.
 * @throws PawlError `schema-missing`, `schema-outdated` or `schema-newer`, whose hint says what to run
 */
export async function checkSchema(
  db: Database,
  schema: string,
  migrations?: readonly Migration[],
): Promise<void> {
  const known = migrations ?? (await readMigrations())
  const recorded = await recordedMigrations(db.query, schema)
  rejectNewer(recorded, known, schema)
  const hint = 'Run `npx pawl migrate`, or give `migrate: true` to new Pawl().'
  if (recorded.length === 0) {
    throw new PawlError('schema-missing', `The database has no schema "${schema}" of Pawl.`, hint)
  }
  const missing = firstMissing(recorded, known)
  if (!missing) return
  const needed = known.at(-1)?.version
  const applier = recorded.find(({ version }) => version === missing.version)?.applier
  throw new PawlError(
    'schema-outdated',
    `The schema "${schema}" is at version ${missing.version - 1}; this version of Pawl needs ${needed}.`,
    applier ? `It is being migrated by ${applier}. Start again once that is done.` : hint,
  )
}

/** @throws PawlError `schema-newer` if the schema has a newer migration that this version of Pawl does not work with */
export function rejectNewer(
  recorded: readonly RecordedMigration[],
  migrations: readonly Migration[],
  schema: string,
): void {
  const known = migrations.at(-1)?.version ?? 0
  // Also one that has only begun: its first stages may already be in the schema.
  const incompatible = recorded.find((row) => row.version > known && row.compatibleFrom > known)
  if (!incompatible) return
  const { version, compatibleFrom } = incompatible
  throw new PawlError(
    'schema-newer',
    `The schema "${schema}" is at version ${version}, which needs code that knows version ${compatibleFrom}; this version of Pawl knows ${known}.`,
    'Upgrade pawl in this app; an older library must not write into a newer schema.',
  )
}
