import { endChild, startChild, whenReady } from './child.ts'
import type { Program } from './program.ts'

/** The URL of the PostgreSQL at `DATABASE_URL`, or of an embedded one that ends with the program. */
export async function databaseUrl(program: Program): Promise<string> {
  if (process.env.DATABASE_URL) return process.env.DATABASE_URL
  console.log('\n  Starting PostgreSQL …')
  const database = startChild(new URL('./database.ts', import.meta.url), {})
  program.atEnd(() => endChild(database, 'disconnect'))
  return (await whenReady<{ url: string }>(database)).url
}
