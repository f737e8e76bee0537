import { checkDatabase } from './check-database.ts'
import { endChild, startChild, whenReady } from './child.ts'
import type { Program } from './program.ts'

/** Longer than stopping PostgreSQL takes at worst: a process that is killed leaves it running. */
const DATABASE_PATIENCE_MS = 60_000

/** The URL of the PostgreSQL at `DATABASE_URL`, or of an embedded one that ends with the program. */
export async function databaseUrl(program: Program): Promise<string> {
  const given = process.env.DATABASE_URL
  if (given) {
    await checkDatabase(given)
    return given
  }
  console.log('\n  Starting PostgreSQL …')
  const database = startChild(new URL('./database.ts', import.meta.url), {})
  program.atEnd(() => endChild(database, DATABASE_PATIENCE_MS))
  return (await whenReady<{ url: string }>(database)).url
}
