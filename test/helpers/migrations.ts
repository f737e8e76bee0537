import {
  type Migration,
  parseMigration,
  readMigrations,
} from '../../lib/store/migrations/migration-files.ts'

/** The name of the file of the migration after the present ones. */
export async function nextName(what: string): Promise<string> {
  const present = await readMigrations()
  return `${String(present.length + 1).padStart(3, '0')}_${what}.sql`
}

/** The migrations of a version of Pawl that has one more. */
export async function withNext(text: string): Promise<{ all: Migration[]; next: Migration }> {
  const next = parseMigration(await nextName('next'), text)
  return { all: [...(await readMigrations()), next], next }
}

/** A logger that keeps what it gets at `info`. */
export function progressLog() {
  const lines: string[] = []
  return { lines, debug() {}, warn() {}, info: (message: string) => void lines.push(message) }
}
