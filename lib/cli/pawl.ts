#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { PawlError } from '../errors.ts'
import { pawlOptions } from '../options.ts'
import { parseOptions } from '../parse-options.ts'
import type { Database } from '../store/database.ts'
import { openDatabase } from '../store/open-database.ts'
import { list, migrateCommand, release, show } from './commands.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

interface Common {
  databaseUrl?: string
  schema: string
}

/** Runs a command against the database and reports errors as sentences. */
async function run(options: Common, work: (db: Database, schema: string) => Promise<void>) {
  let db: Database | undefined
  try {
    if (!options.databaseUrl) {
      throw new PawlError(
        'invalid-option',
        'No database is given.',
        'Set DATABASE_URL, or give --database-url postgres://user:password@host/database.',
      )
    }
    const { database, schema, storeTimeout } = parseOptions(
      pawlOptions,
      { database: options.databaseUrl, schema: options.schema, storeTimeout: '30s' },
      'pawl',
    )
    db = await openDatabase(database, storeTimeout)
    await work(db, schema)
  } catch (error) {
    console.error(`pawl: ${sentence(error)}`)
    process.exitCode = 1
  } finally {
    await db?.close()
  }
}

function sentence(error: unknown): string {
  if (error instanceof PawlError) return error.message
  const { message, code } = error as Error & { code?: string }
  // Trying several addresses of one name gives an error with a code and no message.
  return `${message || code}. Check --database-url, that PostgreSQL runs, and what the role may do.`
}

const program = new Command('pawl')
  .description('Durable idempotency for Node backends: the schema and what is in it.')
  .version(version)
  .addOption(
    new Option('-d, --database-url <url>', 'the PostgreSQL that the app uses').env('DATABASE_URL'),
  )
  .option('-s, --schema <name>', 'the schema Pawl lives in', 'pawl')
  .showHelpAfterError('(run pawl --help for what there is)')

const common = () => program.opts<Common>()

program
  .command('migrate')
  .description('apply the migrations that are missing; safe to run from many places at once')
  .action(() => run(common(), migrateCommand))

program
  .command('list')
  .description('the executions that need somebody: interrupted, unknown, released or parked')
  .option('--all', 'the latest executions, whatever their status')
  .option('-n, --limit <count>', 'at most this many', Number, 20)
  .action((options: { all?: boolean; limit: number }) =>
    run(common(), (db, schema) => list(db, schema, options)),
  )

program
  .command('show <key>')
  .description('what is known of the executions with this key')
  .option('--scope <scope>', 'only in this scope')
  .action((key: string, options: { scope?: string }) =>
    run(common(), (db, schema) => show(db, schema, key, options.scope)),
  )

program
  .command('release <key>')
  .description(
    'free an execution that is unknown, interrupted or parked: the next retry (or a worker) runs it again',
  )
  .option('--scope <scope>', 'the scope of the key', '')
  .action((key: string, options: { scope: string }) =>
    run(common(), (db, schema) => release(db, schema, key, options.scope)),
  )

await program.parseAsync()
