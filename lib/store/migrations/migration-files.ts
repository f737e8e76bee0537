/** Reads the files in `migrations/` and splits each into its stages. */

import { readdir, readFile } from 'node:fs/promises'

// The same relative path from lib/store/migrations and from dist/store/migrations.
const MIGRATIONS = new URL('../../../migrations/', import.meta.url)

/** A migration file. */
export interface Migration {
  version: number
  /** The name of the file. */
  name: string
  /**
   * The oldest version that code may know and still work with the schema while this migration is applied and after.
   * The version itself if no older code works.
   */
  compatibleFrom: number
  stages: Stage[]
}

/**
 * A part of a migration that is applied and recorded as a whole.
 *
 * - `transaction`: runs in one transaction, in which it is also recorded
 * - `concurrently`: one statement that PostgreSQL refuses to run in a transaction; it creates or drops an index
 */
export type Stage =
  | { kind: 'transaction'; sql: string }
  | { kind: 'concurrently'; action: 'create' | 'drop'; index: string; sql: string }

const COMPATIBLE_FROM = /^-- compatible from: (.*)$/m
const STAGE = /^-- stage: (.*)$/m
const COMMENT = /--.*$/gm
const CREATE_INDEX =
  /^create\s+(?:unique\s+)?index\s+concurrently\s+if\s+not\s+exists\s+(\w+)\s+on\s+pawl\.\w+[^;]*;?$/i
const DROP_INDEX = /^drop\s+index\s+concurrently\s+if\s+exists\s+pawl\.(\w+)\s*;?$/i

let known: readonly Migration[] | undefined

/** All migrations, in the order of their versions. The files are read once. */
export async function readMigrations(): Promise<readonly Migration[]> {
  known ??= await readFiles()
  return known
}

async function readFiles(): Promise<Migration[]> {
  const names = (await readdir(MIGRATIONS)).filter((name) => /^\d{3}_.*\.sql$/.test(name)).sort()
  return Promise.all(
    names.map(async (name) =>
      parseMigration(name, await readFile(new URL(name, MIGRATIONS), 'utf8')),
    ),
  )
}

/**
 * Splits the text of a migration at its `-- stage: …` lines; a text without such a line is one transaction.
 * @throws Error if the text is not a migration that can be applied stage by stage
 */
export function parseMigration(name: string, text: string): Migration {
  const version = Number(name.slice(0, 3))
  const stated = COMPATIBLE_FROM.exec(text)?.[1]
  const compatibleFrom = stated === undefined ? version : Number(stated)
  if (!(Number.isInteger(compatibleFrom) && compatibleFrom >= 1 && compatibleFrom <= version)) {
    throw new Error(`${name}: "compatible from" is not a version from 1 to ${version}.`)
  }
  // With its group, split() gives the kinds between the texts.
  const [head = '', ...parts] = text.split(STAGE)
  if (parts.length === 0) {
    return { version, name, compatibleFrom, stages: [{ kind: 'transaction', sql: text }] }
  }
  if (statements(head) !== '') throw new Error(`${name}: a statement precedes the first stage.`)
  const stages: Stage[] = []
  for (let n = 0; n < parts.length; n += 2) {
    stages.push(parseStage(`${name}, stage ${n / 2 + 1}`, parts[n] ?? '', parts[n + 1] ?? ''))
  }
  return { version, name, compatibleFrom, stages }
}

function parseStage(place: string, kind: string, sql: string): Stage {
  if (kind === 'transaction') return { kind, sql }
  if (kind !== 'concurrently') throw new Error(`${place}: "${kind}" is no kind of stage.`)
  const statement = statements(sql)
  const created = CREATE_INDEX.exec(statement)?.[1]
  if (created) return { kind, action: 'create', index: created, sql: statement }
  const dropped = DROP_INDEX.exec(statement)?.[1]
  if (dropped) return { kind, action: 'drop', index: dropped, sql: statement }
  throw new Error(
    `${place}: not one "create index concurrently if not exists" or "drop index concurrently if exists".`,
  )
}

/** The text without its comments. */
function statements(sql: string): string {
  return sql.replace(COMMENT, '').trim()
}

/** The SQL for the schema of that name: the files are written for a schema named pawl. */
export function inSchema(sql: string, schema: string): string {
  return sql.replace(/\bpawl\./g, () => `"${schema}".`)
}
