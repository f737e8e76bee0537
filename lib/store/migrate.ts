/** Creates Pawl's schema in the database, and applies the migrations that it lacks while the app runs. */

import type { Logger } from '../options/logger.ts'
import type { Database, Query } from './database/database.ts'
import { retryConflicts } from './database/retry-conflicts.ts'
import { applyStage, GIVE_UP_MS, LOCK_TIMEOUT_MS } from './migrations/apply-stage.ts'
import { inSchema, type Migration, readMigrations } from './migrations/migration-files.ts'
import { LEASE_MS, LeaseLostError, MigrationLease } from './migrations/migration-lease.ts'
import { pause } from './migrations/pause.ts'
import { firstMissing, recordedMigrations, rejectNewer } from './migrations/schema-version.ts'
import { applySettings } from './migrations/stage-settings.ts'

/** After how long a process that is frozen while it creates the schema lets the others do it, in ms. */
const FROZEN_MS = 30_000

/** How often to look whether another process has applied a migration, in ms. */
const LOOK_MS = 250

/** How often a message that still holds is repeated, in ms. */
const REPEAT_MS = 30_000

/** Options of {@link migrate}. */
export interface MigrateOptions {
  /** Gets a line for what is applied and what is waited for (`info`). */
  logger?: Logger
  /** Stops: cancels the statement under way, lets others continue at once, and rejects with the signal's reason. */
  signal?: AbortSignal
  /** Default: the files in `migrations/`. */
  migrations?: readonly Migration[]
  /** How long a try waits for a lock of a table, in ms. */
  lockTimeoutMs?: number
  /** How long a stage that is blocked is tried, in ms. */
  giveUpMs?: number
  /** How long after the death of a process another continues, in ms. */
  leaseMs?: number
}

/**
 * Applies the missing migrations. An empty database gets all of them in one transaction. On a schema that is in use,
 * they are applied stage by stage: no read and no write waits for longer than `lockTimeoutMs`.
 *
 * Safe when many processes start at once: one of them applies a migration, the others wait for it, and take over if
 * it dies. What is done of a migration is recorded, and the next call continues there.
 *
 * @returns the names of the migrations that this call has completed
 * @throws PawlError `schema-newer`, `migration-blocked`, `migration-failed`
 */
export async function migrate(
  db: Database,
  schema: string,
  options: MigrateOptions = {},
): Promise<string[]> {
  const { leaseMs = LEASE_MS, signal } = options
  const migrations = options.migrations ?? (await readMigrations())
  const report = reporter(options.logger, schema)
  const completed: string[] = []
  for (;;) {
    signal?.throwIfAborted()
    const recorded = await recordedMigrations(db.query, schema)
    rejectNewer(recorded, migrations, schema)
    const missing = firstMissing(recorded, migrations)
    if (!missing) return completed
    if (recorded.length === 0) {
      const applied = await createSchema(db, schema, migrations, signal)
      options.logger?.debug('created the schema', { schema, applied })
      completed.push(...applied)
      continue
    }
    const lease = await MigrationLease.take(db, schema, missing, leaseMs)
    if (lease) {
      const isCompleted = await apply(db, schema, missing, lease, report, options)
      if (isCompleted) completed.push(missing.name)
    } else {
      const applier = recorded.find(({ version }) => version === missing.version)?.applier
      if (applier) report(`${missing.name}: waiting for ${applier}, which applies it`)
      await pause(LOOK_MS, signal)
    }
  }
}

/**
 * Creates the schema with all migrations in one transaction: nobody uses it yet. Of several processes that do this at
 * once, one gets the advisory lock of the transaction, which works through PgBouncer and is always released; the
 * others wait for it and find the schema.
 * @returns the names of the migrations that this call has applied
 */
async function createSchema(
  db: Database,
  schema: string,
  migrations: readonly Migration[],
  signal?: AbortSignal,
): Promise<string[]> {
  return retryConflicts(() =>
    db.session(
      (session) =>
        session.transaction(async (query) => {
          await applySettings(query, 'transaction', {
            lock_timeout: 0,
            idle_in_transaction_session_timeout: FROZEN_MS,
          })
          await query('select pg_advisory_xact_lock(hashtext($1))', [`pawl migrate ${schema}`])
          if ((await recordedMigrations(query, schema)).length > 0) return []
          // "create schema if not exists" needs the right to create schemas even if the schema exists. An
          // ordinary role may own its schema and have no other rights.
          const [exists] = await query('select 1 from pg_namespace where nspname = $1', [schema])
          if (!exists) await query(`create schema "${schema}"`)
          await query(migrationsTable(schema))
          for (const migration of migrations) await applyAtOnce(query, schema, migration)
          return migrations.map(({ name }) => name)
        }),
      signal,
    ),
  )
}

async function applyAtOnce(query: Query, schema: string, migration: Migration): Promise<void> {
  const { version, name, compatibleFrom, stages } = migration
  for (const { kind, sql } of stages) {
    const statements = kind === 'concurrently' ? sql.replace(/\bconcurrently\b/i, '') : sql
    await query(inSchema(statements, schema))
  }
  await query(
    `insert into "${schema}".migrations (version, name, compatible_from, stages, applied_at)
     values ($1::int4, $2, $3::int4, $4::int4, clock_timestamp())`,
    [version, name, compatibleFrom, stages.length],
  )
}

function migrationsTable(schema: string): string {
  return `create table if not exists "${schema}".migrations (
    version         integer primary key,
    name            text not null,
    -- Code that knows this version, or any later one, works with the schema while the migration is applied and after.
    compatible_from integer not null,
    -- How many of its stages are done.
    stages          integer not null,
    -- Null until all stages are done.
    applied_at      timestamptz,
    -- The process that applies it, or did so last, and until when no other may.
    owner           uuid,
    host            text,
    pid             integer,
    expires_at      timestamptz
  )`
}

/** @returns whether the migration is complete; false if another process has taken it over */
async function apply(
  db: Database,
  schema: string,
  migration: Migration,
  lease: MigrationLease,
  report: (message: string) => void,
  { signal, lockTimeoutMs = LOCK_TIMEOUT_MS, giveUpMs = GIVE_UP_MS }: MigrateOptions,
): Promise<boolean> {
  report(
    lease.stagesDone === 0
      ? `${migration.name}: applying it`
      : `${migration.name}: continuing after stage ${lease.stagesDone}`,
  )
  try {
    await lease.hold(async (lost) => {
      const stop = signal ? AbortSignal.any([signal, lost]) : lost
      const context = {
        db,
        schema,
        migration,
        lease,
        signal: stop,
        report,
        lockTimeoutMs,
        giveUpMs,
      }
      for (const [n, stage] of migration.stages.entries()) {
        if (n >= lease.stagesDone) await applyStage(context, stage, n + 1)
      }
    })
    report(`${migration.name}: applied`)
    return true
  } catch (error) {
    if (error instanceof LeaseLostError) return false
    // If this fails too, the others wait until the lease expires.
    await lease.release().catch(() => {})
    throw error
  }
}

/** Logs each message once, and again if it still comes after a while. */
function reporter(logger: Logger | undefined, schema: string): (message: string) => void {
  const saidAt = new Map<string, number>()
  return (message) => {
    const now = performance.now()
    if (now - (saidAt.get(message) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS) return
    saidAt.set(message, now)
    const log = logger?.info ? logger.info.bind(logger) : logger?.debug.bind(logger)
    log?.(message, { schema })
  }
}
