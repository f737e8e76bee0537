import type { Database } from './database/database.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { sqlFragments } from './sql/fragments.ts'

/** What an execution is, whatever becomes of it. */
export interface Description {
  id: string
  /** Names one life of the execution: opaque. */
  incarnation: string
  /** `request` or `workflow`. */
  kind: string
  /** Of a request: method and path. */
  name: string
  scope: string
  key: string
  createdAt: Date
}

/**
 * What is known of an execution since its claim; null if there is none. Safe: reads one row.
 * @param schema the schema's name, as given by the user
 */
export async function describe(
  db: Database,
  schema: string,
  id: string,
): Promise<Description | null> {
  const { incarnation, clock } = sqlFragments(`"${schema}"`)
  const sql = `
    with ${clock}
    select ${incarnation('e')}::text, e.kind, e.name, e.scope, e.key
    from "${schema}".executions e, clock
    where e.id = $1::uuid
      and (e.expires_at > clock.now or e.status = 'running')`
  const [row] = await withStoreErrors(db.query(sql, [id]))
  if (!row) return null
  const [life, kind, name, scope, key] = row as string[] as [string, string, string, string, string]
  return { id, incarnation: life, kind, name, scope, key, createdAt: new Date(Number(life) / 1000) }
}
