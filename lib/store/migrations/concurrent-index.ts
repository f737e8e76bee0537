/** Creates and drops indexes while the app reads and writes. */

import type { Database, Query, Session } from '../database/database.ts'
import type { Stage } from './migration-files.ts'
import { pause } from './pause.ts'

/** How often the progress of a build is reported, in ms. */
const LOOK_MS = 2000

/** How often to look whether a build of another session has ended, in ms. */
const BUILD_LOOK_MS = 500

/** What an index stage needs of its migration. */
export interface IndexStageContext {
  db: Database
  schema: string
  signal: AbortSignal
  /** Reports what happens, for people. */
  report: (message: string) => void
}

type IndexStage = Extract<Stage, { kind: 'concurrently' }>

/**
 * Creates or drops an index. May be repeated: a build that has failed, or whose process died, leaves an invalid
 * index, which is dropped first; one that still runs in PostgreSQL is waited for.
 *
 * It takes SHARE UPDATE EXCLUSIVE locks, for which no read and no write of the app waits.
 *
 * @param stage its statement is for the schema
 */
export async function runIndexStage(
  context: IndexStageContext,
  session: Session,
  stage: IndexStage,
): Promise<void> {
  const { schema, report } = context
  const { index, action, sql } = stage
  if (action === 'drop') {
    report(`dropping index ${index}`)
    await session.query(sql)
    return
  }
  // Until it is valid: of two sessions that create it, one does nothing, and the build of the other may fail.
  for (;;) {
    await untilNobodyBuilds(context, session.query, index)
    const state = await stateOf(session.query, schema, index)
    if (state === 'valid') return
    if (state === 'invalid') {
      report(`dropping ${index}, which a failed build has left`)
      await session.query(`drop index concurrently if exists "${schema}"."${index}"`)
    }
    await build(context, session, stage)
  }
}

async function build(
  { db, schema, signal, report }: IndexStageContext,
  session: Session,
  { index, sql }: IndexStage,
): Promise<void> {
  report(`creating index ${index}`)
  const watch = setInterval(() => {
    // Only for people: a look that fails is made again.
    buildProgress(db.urgent, schema, index).then(
      (progress) => progress && !signal.aborted && report(`creating index ${index}: ${progress}`),
      () => {},
    )
  }, LOOK_MS)
  try {
    await session.query(sql)
  } finally {
    clearInterval(watch)
  }
}

/** Waits while another session builds the index: that of a process that died does not notice before the end. */
async function untilNobodyBuilds(
  { schema, signal, report }: IndexStageContext,
  query: Query,
  index: string,
): Promise<void> {
  for (;;) {
    const progress = await buildProgress(query, schema, index)
    if (!progress) return
    report(`waiting for a build of ${index} that is under way: ${progress}`)
    await pause(BUILD_LOOK_MS, signal)
  }
}

/** Whether the index can be used; an index that is being built is invalid. */
async function stateOf(
  query: Query,
  schema: string,
  index: string,
): Promise<'missing' | 'invalid' | 'valid'> {
  const [row] = await query(
    `select indisvalid from pg_catalog.pg_index where indexrelid = to_regclass($1)`,
    [`"${schema}"."${index}"`],
  )
  if (!row) return 'missing'
  return row[0] ? 'valid' : 'invalid'
}

/** Describes how far the build of an index is; null if no session of this role builds it. */
async function buildProgress(query: Query, schema: string, index: string): Promise<string | null> {
  const [row] = await query(
    `select phase, current_locker_pid,
       case when phase like '%tuples%' then 100 * tuples_done / nullif(tuples_total, 0)
         else 100 * blocks_done / nullif(blocks_total, 0) end::int4
     from pg_catalog.pg_stat_progress_create_index where index_relid = to_regclass($1)`,
    [`"${schema}"."${index}"`],
  )
  if (!row) return null
  const [phase, locker, percent] = row
  if (locker) return `${phase} (of process ${locker})`
  return percent === null ? (phase as string) : `${phase}, ${percent} %`
}
