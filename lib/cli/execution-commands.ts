/** The `list`, `show` and `release` commands of the command line. */

import { executionId } from '../engine/execution-id.ts'
import { PawlError } from '../errors/index.ts'
import type { Database, Row } from '../store/database/database.ts'
import { PgArray } from '../store/database/pg-array.ts'
import { WORK_DUE } from '../store/execution-store.ts'
import { checkSchema } from '../store/migrations/schema-version.ts'
import { executionStatements } from '../store/sql/execution-statements.ts'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** How many characters of an error or a value a table shows. */
const ERROR_WIDTH = 100

/** The columns that `list` prints, and their SQL expressions over the view `execution_log`. */
const LIST_COLUMNS = {
  status: `case when cancelling then status || ' (cancelling)' else status end`,
  kind: 'kind',
  scope: 'scope',
  key: 'key',
  name: 'name',
  version: `coalesce(version, '')`,
  attempt: 'attempt::text',
  response: `coalesce(response_status::text, '')`,
  created: `to_char(created_at, 'YYYY-MM-DD HH24:MI:SS')`,
  duration: `date_trunc('milliseconds', duration)::text`,
  id: `case when kind = 'request' then '' else id::text end`,
  error: `left(regexp_replace(coalesce(error ->> 'message', error #>> '{}', ''), '\\s+', ' ', 'g'), ${ERROR_WIDTH})`,
}

/** The columns of the journal that `show` prints, and their SQL expressions over the view `step_log`. */
const JOURNAL_COLUMNS = {
  position: 'position::text',
  kind: 'kind',
  name: `case when occurrence = 1 then name else name || ' (' || occurrence || ')' end`,
  status: 'status',
  attempt: 'attempt::text',
  started: `to_char(started_at, 'YYYY-MM-DD HH24:MI:SS')`,
  duration: `coalesce(date_trunc('milliseconds', duration)::text, '')`,
  value: `coalesce(left(coalesce(error ->> 'message', output #>> '{}'), ${ERROR_WIDTH}), '')`,
}

/** Which executions to list. */
export interface ListOptions {
  all?: boolean
  kind?: string
  name?: string
  status?: string
  limit: number
}

// An execution that is still waiting a minute after it was due: no process runs its workflow or its version.
const NEEDS_ATTENTION = `(status in ('interrupted', 'unknown', 'released', 'parked')
  or status = 'waiting' and queue is null and due_at < now - interval '1 minute')`

/** Prints the executions that need attention, or those that the options select. */
export async function listCommand(
  db: Database,
  schema: string,
  { all, kind, name, status, limit }: ListOptions,
): Promise<void> {
  await checkSchema(db, schema)
  const rows = await db.query(
    `select ${Object.values(LIST_COLUMNS).join(', ')}
     from "${schema}".execution_log, (select "${schema}".now()) as clock (now)
     where ($2::text is null or kind = $2) and ($3::text is null or name = $3)
       and ($4::text is null or status = any (string_to_array($4, ',')))
       ${all || status ? '' : `and ${NEEDS_ATTENTION}`}
     order by created_at desc limit $1::int4`,
    [limit, kind ?? null, name ?? null, status ?? null],
  )
  const isFiltered = kind || name || status
  if (rows.length > 0) printTable(LIST_COLUMNS, rows)
  else if (isFiltered) console.log('There is no such execution.')
  else console.log(all ? 'There are no executions.' : 'Nothing needs attention.')
}

/**
 * Prints all that is known of the executions with a key or id.
 * @throws PawlError `execution-missing`
 */
export async function showCommand(
  db: Database,
  schema: string,
  key: string,
  scope: string | undefined,
): Promise<void> {
  await checkSchema(db, schema)
  const rows = await db.query(
    `select to_jsonb(e)::text, id::text from "${schema}".execution_log e
     where (key = $1 or id::text = $1) and ($2::text is null or scope = $2)
     order by created_at`,
    [key, scope ?? null],
  )
  if (rows.length === 0) throw notFound(key)
  for (const [json, id] of rows) {
    for (const [name, value] of Object.entries(JSON.parse(json as string))) {
      console.log(`${name.padEnd(17)} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    }
    const journal = await db.query(
      `select ${Object.values(JOURNAL_COLUMNS).join(', ')} from "${schema}".step_log
       where execution_id = $1::uuid order by step_log.position, step_log.completed_at`,
      [id as string],
    )
    if (journal.length > 0) {
      console.log('\nJournal:')
      printTable(JOURNAL_COLUMNS, journal)
    }
    const pending = await db.query(
      `select name, sender, to_char(sent_at, 'YYYY-MM-DD HH24:MI:SS') from "${schema}".signals
       where execution_id = $1::uuid order by sent_at`,
      [id as string],
    )
    if (pending.length > 0) {
      console.log('\nSignals not yet received:')
      printTable({ name: '', sender: '', sent: '' }, pending)
    }
    console.log()
  }
}

/**
 * Frees an execution that is unknown, interrupted or parked, and prints how it continues.
 * @throws PawlError `execution-missing`
 */
export async function releaseCommand(
  db: Database,
  schema: string,
  key: string,
  scope: string,
): Promise<void> {
  await checkSchema(db, schema)
  // A workflow is given by its id. A key may look like an id, so both are tried.
  const ids = [...(UUID.test(key) ? [key] : []), executionId(scope, key)]
  const sql = executionStatements(`"${schema}"`)
  const released: Row[] = []
  for (const id of ids) released.push(...(await db.query(sql.releaseStuck, [id])))
  if (released.length > 0) {
    const [[, recovers] = []] = released
    if (recovers) await db.query(sql.notify, [schema, new PgArray('text', [WORK_DUE])])
    console.log(
      recovers
        ? 'Released: a worker, or the next retry with this key, now continues it.'
        : 'Released: the next retry with this key runs the handler again.',
    )
    return
  }
  const [row] = await db.query(
    `select status from "${schema}".execution_log where id = any ($1::uuid[])`,
    [new PgArray('uuid', ids)],
  )
  if (!row) throw notFound(key)
  console.log(`Nothing to release: the execution is ${row[0]}.`)
}

function notFound(key: string): PawlError {
  return new PawlError(
    'execution-missing',
    `There is no execution with the key or id ${JSON.stringify(key)}.`,
    'Check the key, and the --scope it was used in; see pawl list --all.',
  )
}

function printTable(columns: Record<string, string>, rows: Row[]): void {
  const names = Object.keys(columns)
  const table = [names, ...(rows as string[][])]
  const widths = names.map((_, i) => Math.max(...table.map((row) => String(row[i]).length)))
  for (const row of table) {
    console.log(
      row
        .map((cell, i) => String(cell).padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
  }
}
