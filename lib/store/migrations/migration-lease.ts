/** The lease on a migration: the row that says which process applies it, and which of its stages are done. */

import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import type { Database, Query } from '../database/database.ts'
import type { Migration } from './migration-files.ts'

/**
 * A process may apply a migration for this long without renewing its lease, in ms. It renews three times as often;
 * after it has died, the next one waits for at most this long.
 */
export const LEASE_MS = 15_000

/** Another process has taken over the migration. */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError'
}

function leaseStatements(schema: string) {
  const table = `"${schema}".migrations`
  return {
    // $1 version, $2 name, $3 compatible_from, $4 owner, $5 host, $6 pid, $7 lease in ms.
    // Of several that run this at once, the row's lock lets one after the other check the lease: one gets it.
    take: `
      insert into ${table} as m
        (version, name, compatible_from, stages, owner, host, pid, expires_at)
      values ($1::int4, $2, $3::int4, 0, $4::uuid, $5, $6::int4,
        clock_timestamp() + $7::int4 * interval '1 ms')
      on conflict (version) do update
        set owner = excluded.owner, host = excluded.host, pid = excluded.pid, expires_at = excluded.expires_at
        where m.applied_at is null and (m.expires_at is null or m.expires_at <= clock_timestamp())
      returning stages`,
    // $1 version, $2 owner, $3 lease in ms. Has no effect once another process has taken the lease. A renewal that
    // waits while this process records the last stage finds its own row, without a lease.
    renew: `
      update ${table}
      set expires_at = case when applied_at is null then clock_timestamp() + $3::int4 * interval '1 ms' end
      where version = $1::int4 and owner = $2::uuid returning 1`,
    // $1 version, $2 owner. A look only: `record` decides.
    read: `select stages from ${table} where version = $1::int4 and owner = $2::uuid`,
    // $1 version, $2 owner, $3 how many stages are done, $4 whether these are all, $5 lease in ms.
    // A compare-and-set on owner and stages: if two processes have run the same stage, one records it, and the
    // transaction of the other is rolled back. It also renews the lease, so that nobody takes it before the commit.
    record: `
      update ${table} set stages = $3::int4,
        applied_at = case when $4::bool then clock_timestamp() end,
        expires_at = case when $4::bool then null else clock_timestamp() + $5::int4 * interval '1 ms' end
      where version = $1::int4 and owner = $2::uuid and stages = $3::int4 - 1 and applied_at is null
      returning 1`,
    // $1 version, $2 owner. Has no effect once another process has taken the lease.
    release: `
      update ${table} set owner = null, expires_at = null
      where version = $1::int4 and owner = $2::uuid and applied_at is null`,
  }
}

/** A lease on a migration that this process applies. */
export class MigrationLease {
  readonly #db: Database
  readonly #statements: ReturnType<typeof leaseStatements>
  readonly #migration: Migration
  readonly #owner: string
  readonly #leaseMs: number
  /** How many stages were done when the lease was taken. */
  readonly stagesDone: number

  private constructor(
    db: Database,
    schema: string,
    migration: Migration,
    owner: string,
    stagesDone: number,
    leaseMs: number,
  ) {
    this.#db = db
    this.#statements = leaseStatements(schema)
    this.#migration = migration
    this.#owner = owner
    this.stagesDone = stagesDone
    this.#leaseMs = leaseMs
  }

  /** Takes the lease on a migration; null if another process has it, or the migration is applied. */
  static async take(
    db: Database,
    schema: string,
    migration: Migration,
    leaseMs: number = LEASE_MS,
  ): Promise<MigrationLease | null> {
    const { version, name, compatibleFrom } = migration
    const owner = randomUUID()
    const values = [version, name, compatibleFrom, owner, hostname(), process.pid, leaseMs]
    const [row] = await db.query(leaseStatements(schema).take, values)
    if (!row) return null
    return new MigrationLease(db, schema, migration, owner, row[0] as number, leaseMs)
  }

  /** Runs `work` and renews the lease meanwhile. The signal fires with a LeaseLostError if another process takes it. */
  async hold<T>(work: (lost: AbortSignal) => Promise<T>): Promise<T> {
    const lost = new AbortController()
    let isRenewing = false
    const renew = async () => {
      // One at a time: on PGlite a renewal waits until the stage has ended.
      if (isRenewing) return
      isRenewing = true
      try {
        if (!(await this.#renew())) lost.abort(this.#lostError())
      } catch {
        // The database may be away for a moment. Whether the lease is lost shows when the next stage is recorded.
      } finally {
        isRenewing = false
      }
    }
    const timer = setInterval(renew, this.#leaseMs / 3)
    try {
      return await work(lost.signal)
    } finally {
      clearInterval(timer)
    }
  }

  /**
   * Whether a stage is recorded as done: also if the reply to its commit was lost.
   * @param stage its number, from 1
   * @throws LeaseLostError
   */
  async isRecorded(query: Query, stage: number): Promise<boolean> {
    const [row] = await query(this.#statements.read, [this.#migration.version, this.#owner])
    if (!row) throw this.#lostError()
    return (row[0] as number) >= stage
  }

  /**
   * Records that a stage is done, in the stage's own transaction if it has one.
   * @param stage its number, from 1
   * @throws LeaseLostError
   */
  async record(query: Query, stage: number): Promise<void> {
    const isLast = stage === this.#migration.stages.length
    const { version } = this.#migration
    const values = [version, this.#owner, stage, isLast, this.#leaseMs]
    const [recorded] = await query(this.#statements.record, values)
    if (!recorded) throw this.#lostError()
  }

  /** Lets another process continue at once. */
  async release(): Promise<void> {
    await this.#db.query(this.#statements.release, [this.#migration.version, this.#owner])
  }

  async #renew(): Promise<boolean> {
    const { renew } = this.#statements
    const { version } = this.#migration
    const rows = await this.#db.urgent(renew, [version, this.#owner, this.#leaseMs])
    return rows.length > 0
  }

  #lostError(): LeaseLostError {
    return new LeaseLostError(`Another process has taken over ${this.#migration.name}.`)
  }
}
