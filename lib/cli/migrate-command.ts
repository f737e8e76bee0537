/** The `migrate` command of the command line. */

import type { Database } from '../store/database/database.ts'
import { migrate } from '../store/migrate.ts'

/** Applies the missing migrations and prints their names. */
export async function migrateCommand(db: Database, schema: string): Promise<void> {
  const applied = await migrate(db, schema)
  for (const name of applied) console.log(`applied ${name}`)
  if (applied.length === 0) console.log(`Schema "${schema}" is up to date.`)
}
