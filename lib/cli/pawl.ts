#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { PawlError } from '../errors/index.ts'
import { parseOptions } from '../options/parse-options.ts'
import { pawlOptions } from '../pawl-options.ts'
import type { Database } from '../store/database/database.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { type ListOptions, list, migrateCommand, release, show } from './execution-commands.ts'
import { cancel, type Storing, signal } from './workflow-commands.ts'
import { loadPawl } from './load-pawl.ts'
import { work } from './work-command.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

interface Common {
  databaseUrl?: string
  schema: string
}

/** Runs a command against the database and reports errors as sentences. */
async function run(
  options: Common & { module?: string },
  command: (db: Database, schema: string, storing: Storing) => Promise<void>,
) {
  let db: Database | undefined
  try {
    const { database, schema, storeTimeout, encryptionKeys, limits } = await settings(options)
    db = await openDatabase(database, storeTimeout)
    await command(db, schema, { encryptionKeys, limits })
  } catch (error) {
    report(error)
  } finally {
    await db?.close()
    // A module of the app may keep the process.
    if (options.module) process.exit()
  }
}

/** As the app has them, if a module of it is given; else as the command line says. */
async function settings({ module, databaseUrl, schema }: Common & { module?: string }) {
  if (module) return (await loadPawl(module)).inside.options
  if (!databaseUrl) {
    throw new PawlError(
      'invalid-option',
      'No database is given.',
      'Set DATABASE_URL, or give --database-url postgres://user:password@host/database.',
    )
  }
  return parseOptions(pawlOptions, { database: databaseUrl, schema, storeTimeout: '30s' }, 'pawl')
}

function report(error: unknown): void {
  if (error instanceof PawlError && error.cause instanceof Error) console.error(error.cause)
  console.error(`pawl: ${sentence(error)}`)
  process.exitCode = 1
}

function sentence(error: unknown): string {
  if (error instanceof PawlError) return error.message
  const { message, code } = error as Error & { code?: string }
  // Trying several addresses of one name gives an error with a code and no message.
  return `${message || code}. Check --database-url, that PostgreSQL runs, and what the role may do.`
}

const program = new Command('pawl')
  .description('Durable idempotency and workflows: the schema, what is in it, and workers.')
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
  .command('work <module>')
  .description('run the workflows of a module that exports the app’s Pawl, until it is told to end')
  .option('-c, --concurrency <count>', 'how many at a time (default: as the app says)', count)
  .action(async (module: string, { concurrency }: { concurrency?: number }) => {
    const given = program.getOptionValueSource('schema') === 'cli'
    const options = { ...(concurrency && { concurrency }), ...(given && { schema: schemaOf() }) }
    await work(module, options).catch(report)
    process.exit()
  })

program
  .command('list')
  .description(
    'the executions that need somebody: interrupted, unknown, released, parked, or overdue since no process has their code',
  )
  .option('--all', 'the latest executions, whatever their status')
  .option('--kind <kind>', 'only this kind: request, workflow or object')
  .option('--name <name>', 'only of this route or workflow')
  .option('--status <status>', 'only in this status, or these, with commas between')
  .option('-n, --limit <count>', 'at most this many', count, 20)
  .action((options: ListOptions) => run(common(), (db, schema) => list(db, schema, options)))

program
  .command('show <key>')
  .description('what is known of the executions with this key or id, and their journals')
  .option('--scope <scope>', 'only in this scope')
  .action((key: string, options: { scope?: string }) =>
    run(common(), (db, schema) => show(db, schema, key, options.scope)),
  )

program
  .command('release <key>')
  .description(
    'free an execution, by its key or id, that is unknown, interrupted or parked: the next retry (or a worker) runs it again',
  )
  .option('--scope <scope>', 'the scope of the key', '')
  .action((key: string, options: { scope: string }) =>
    run(common(), (db, schema) => release(db, schema, key, options.scope)),
  )

program
  .command('signal <id> <name> [json]')
  .description('send a signal to a workflow; its value is JSON, true by default')
  .option('--id <sender>', 'the id of this signal: sent twice, it arrives once')
  .option(
    '-m, --module <file>',
    'exports the app’s Pawl, whose database and encryption keys it uses',
  )
  .action((id: string, name: string, json: string | undefined, options) =>
    run({ ...common(), module: options.module }, (db, schema, storing) => {
      const { id: sender } = options
      return signal(
        db,
        schema,
        { id, name, ...(json && { json }), ...(sender && { sender }) },
        storing,
      )
    }),
  )

program
  .command('cancel <id>')
  .description('ask a workflow, and what it has started, to end: what it did is undone')
  .action((id: string) => run(common(), (db, schema, storing) => cancel(db, schema, id, storing)))

function schemaOf(): string {
  return common().schema
}

function count(text: string): number {
  const number = Number(text)
  if (Number.isInteger(number) && number > 0) return number
  throw new InvalidArgumentError('Give a whole number from 1.')
}

await program.parseAsync()
