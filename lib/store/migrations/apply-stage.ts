/** Applies a stage of a migration, and tries again while it is blocked. */

import { PawlError } from '../../errors/index.ts'
import { classify, type Database, isConnectionError, type Session } from '../database/database.ts'
import { runIndexStage } from './concurrent-index.ts'
import { describeLockWait } from './lock-holders.ts'
import { inSchema, type Migration, type Stage } from './migration-files.ts'
import { LeaseLostError, type MigrationLease } from './migration-lease.ts'
import { pause } from './pause.ts'
import { applySettings } from './stage-settings.ts'

/**
 * How long a stage waits for a lock in one try, in ms. While ALTER TABLE waits, all reads and writes of the table
 * wait behind it. This is a fifth of the default `storeTimeout`, so that none of them fails.
 */
export const LOCK_TIMEOUT_MS = 1000

/**
 * How long this process may be silent in a transaction, in ms: it may freeze, or lose the network, while it holds the
 * lock of a table. PostgreSQL then rolls the stage back.
 */
const IDLE_MS = 3000

/** How long a stage is tried while it is blocked, in ms. */
export const GIVE_UP_MS = 10 * 60_000

/**
 * The pauses between tries, in ms. Half of each is certain: what has waited behind a try must be done before the
 * next one.
 */
const PAUSE = { firstMs: 2000, maxMs: 15_000 }

/** How often to look what an index stage waits for, in ms. */
const LOCK_LOOK_MS = 2000

/** What a stage needs of its migration. */
export interface StageContext {
  db: Database
  schema: string
  migration: Migration
  lease: MigrationLease
  /** Fires when the stage must not go on. */
  signal: AbortSignal
  /** Reports what happens, for people. */
  report: (message: string) => void
  lockTimeoutMs: number
  giveUpMs: number
}

/** What is known of the tries of a stage. */
interface Tries {
  /** The lock that was last waited for, and who holds it. */
  blockedBy: string | null
  /** Whether the last try had a connection to PostgreSQL itself. */
  isDirect: boolean
}

/**
 * Applies a stage and records it.
 * @param number counts the stages from 1
 * @throws PawlError `migration-blocked` or `migration-failed`, whose hint says what to do; LeaseLostError; and the
 * signal's reason
 */
export async function applyStage(
  context: StageContext,
  stage: Stage,
  number: number,
): Promise<void> {
  const { db, signal, migration, lockTimeoutMs, giveUpMs } = context
  const place = `${migration.name}, stage ${number} of ${migration.stages.length}`
  const report = (message: string) => context.report(`${place}: ${message}`)
  const known: Tries = { blockedBy: null, isDirect: true }
  let giveUpAt: number | undefined
  for (let tries = 1; ; tries++) {
    try {
      await db.session(async (session) => {
        known.isDirect = session.isDirect
        const isDone = await context.lease.isRecorded(session.query, number)
        if (isDone) return
        if (stage.kind === 'transaction') {
          await runInTransaction(context, session, stage, number, known)
        } else {
          await runConcurrently({ ...context, report }, session, stage, number, known)
        }
      }, signal)
      return
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof LeaseLostError) throw error
      if (!isTransient(error)) throw failed(place, error, known)
      const isBlocked = classify(error) === 'blocked'
      const lockTimeout = stage.kind === 'transaction' ? lockTimeoutMs : giveUpMs
      const waited = isBlocked && known.isDirect ? lockTimeout : 0
      giveUpAt ??= performance.now() + giveUpMs - waited
      if (performance.now() >= giveUpAt) throw givenUp(place, giveUpMs, known, error)
      const cause = isBlocked && known.blockedBy
      report(`${cause ? `waiting for ${cause}` : messageOf(error)}, try ${tries}`)
    }
    const certain = Math.min(PAUSE.maxMs, PAUSE.firstMs * 2 ** (tries - 1)) / 2
    await pause(certain + certain * Math.random(), signal)
  }
}

/** The stage and its record are committed together, or neither is. */
async function runInTransaction(
  { db, schema, lease, lockTimeoutMs }: StageContext,
  session: Session,
  stage: Stage,
  number: number,
  known: Tries,
): Promise<void> {
  await session.transaction(async (query) => {
    const pid = await applySettings(query, 'transaction', {
      lock_timeout: lockTimeoutMs,
      idle_in_transaction_session_timeout: IDLE_MS,
    })
    const stopWatching = watchLock(db, pid, lockTimeoutMs / 2, (wait) => {
      known.blockedBy = wait
    })
    try {
      await query(inSchema(stage.sql, schema))
    } finally {
      stopWatching()
    }
    await lease.record(query, number)
  })
}

/** The stage can be repeated, so that it is recorded after it. */
async function runConcurrently(
  context: StageContext,
  session: Session,
  stage: Extract<Stage, { kind: 'concurrently' }>,
  number: number,
  known: Tries,
): Promise<void> {
  const { db, schema, lease, giveUpMs, report } = context
  const { query, isDirect } = session
  // Through a pooler, the settings would reach other statements and clients, and perhaps not this one; and the process
  // id would be that of another backend.
  const stopWatching = isDirect
    ? watchLock(
        db,
        await applySettings(query, 'session', { lock_timeout: giveUpMs }),
        LOCK_LOOK_MS,
        (wait) => {
          known.blockedBy = wait
          report(`waiting for ${wait}`)
        },
      )
    : () => {}
  try {
    await runIndexStage(context, session, { ...stage, sql: inSchema(stage.sql, schema) })
  } finally {
    stopWatching()
  }
  await lease.record(query, number)
}

/** Looks, as often as given, which lock a backend waits for. */
function watchLock(
  db: Database,
  pid: number,
  everyMs: number,
  onWait: (wait: string) => void,
): () => void {
  let isWatching = true
  const timer = setInterval(() => {
    // Only for people: a look that fails is made again.
    describeLockWait(db.urgent, pid).then(
      (wait) => wait && isWatching && onWait(wait),
      () => {},
    )
  }, everyMs)
  return () => {
    isWatching = false
    clearInterval(timer)
  }
}

/**
 * Whether the stage may succeed later. Not if PostgreSQL is out of memory or disk space, which a repeated build would
 * take from the app, and not if somebody or a timeout has cancelled it.
 */
function isTransient(error: unknown): boolean {
  const failure = classify(error)
  if (failure !== 'unavailable') return failure === 'blocked' || failure === 'conflict'
  const { code } = error as { code?: unknown }
  return isConnectionError(error) || TRANSIENT.includes(code)
}

/** too_many_connections, cannot_connect_now, idle_in_transaction_session_timeout, and read-only after a failover. */
const TRANSIENT: unknown[] = ['53300', '57P03', '25P03', '25006']
const QUERY_CANCELED = '57014'

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function failed(place: string, error: unknown, { isDirect }: Tries): PawlError {
  const isTimeout = !isDirect && (error as { code?: unknown }).code === QUERY_CANCELED
  return new PawlError(
    'migration-failed',
    `${place}, failed: ${messageOf(error)}.`,
    isTimeout
      ? 'A pooler is in between, through which Pawl cannot lift the statement_timeout of the role. Run `npx pawl migrate` with the address of PostgreSQL itself: it continues with this stage.'
      : 'Correct the cause, then run `npx pawl migrate`: it continues with this stage.',
    error,
  )
}

function givenUp(place: string, giveUpMs: number, { blockedBy }: Tries, error: unknown): PawlError {
  const isLock = classify(error) === 'blocked'
  const cause = isLock && blockedBy ? `it waited for ${blockedBy}` : messageOf(error)
  const task = isLock ? 'End the transaction that holds the lock' : 'Correct the cause'
  return new PawlError(
    'migration-blocked',
    `${place}, was blocked for ${Math.round(giveUpMs / 1000)} s: ${cause}.`,
    `${task}, then run \`npx pawl migrate\`: it continues with this stage.`,
    error,
  )
}
