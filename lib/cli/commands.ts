import { executionId } from '../engine/execution-id.ts'
import { PawlError } from '../errors.ts'
import type { Database, Row } from '../store/database.ts'
import { checkSchema, migrate } from '../store/migrate.ts'
import { statements } from '../store/statements.ts'

export async function migrateCommand(db: Database, schema: string): Promise<void> {
  const applied = await migrate(db, schema)
  for (const name of applied) console.log(`applied ${name}`)
  if (applied.length === 0) console.log(`Schema "${schema}" is up to date.`)
}

const COLUMNS = ['status', 'scope', 'key', 'name', 'attempt', 'response', 'created', 'duration']
const SELECT = `select status, scope, key, name, attempt::text, coalesce(response_status::text, ''),
  to_char(created_at, 'YYYY-MM-DD HH24:MI:SS'), date_trunc('milliseconds', duration)::text`

export async function list(
  db: Database,
  schema: string,
  { all, limit }: { all?: boolean; limit: number },
): Promise<void> {
  await checkSchema(db, schema)
  const rows = await db.query(
    `${SELECT} from "${schema}".execution_log
     ${all ? '' : "where status in ('interrupted', 'unknown', 'released', 'parked')"}
     order by created_at desc limit $1::int4`,
    [limit],
  )
  if (rows.length > 0) printTable(rows)
  else console.log(all ? 'There are no executions.' : 'Nothing needs attention.')
}

export async function show(
  db: Database,
  schema: string,
  key: string,
  scope: string | undefined,
): Promise<void> {
  await checkSchema(db, schema)
  const rows = await db.query(
    `select to_jsonb(e)::text from "${schema}".execution_log e
     where key = $1 and ($2::text is null or scope = $2) order by created_at`,
    [key, scope ?? null],
  )
  if (rows.length === 0) throw notFound(key)
  for (const [json] of rows) {
    for (const [name, value] of Object.entries(JSON.parse(json as string))) {
      console.log(`${name.padEnd(17)} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    }
    console.log()
  }
}

export async function release(
  db: Database,
  schema: string,
  key: string,
  scope: string,
): Promise<void> {
  await checkSchema(db, schema)
  const id = executionId(scope, key)
  const released = await db.query(statements(`"${schema}"`).free, [id])
  if (released.length > 0) {
    const [[, recovers] = []] = released
    console.log(
      recovers
        ? 'Released: a worker goes on with it now, or the next retry with this key.'
        : 'Released: the next retry with this key runs the handler again.',
    )
    return
  }
  const [row] = await db.query(`select status from "${schema}".execution_log where id = $1::uuid`, [
    id,
  ])
  if (!row) throw notFound(key)
  console.log(`Nothing to release: the execution is ${row[0]}.`)
}

function notFound(key: string): PawlError {
  return new PawlError(
    'execution-missing',
    `There is no execution with the key ${JSON.stringify(key)}.`,
    'Check the key, and the --scope it was used in; see pawl list --all.',
  )
}

function printTable(rows: Row[]): void {
  const table = [COLUMNS, ...(rows as string[][])]
  const widths = COLUMNS.map((_, i) => Math.max(...table.map((row) => String(row[i]).length)))
  for (const row of table) {
    console.log(
      row
        .map((cell, i) => String(cell).padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
  }
}
