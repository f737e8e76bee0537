#!/usr/bin/env node
/** The `pawl` command: defines its subcommands and options. */

import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { PawlError } from '../errors/index.ts'
import { parseOptions, positiveDuration } from '../options/parse-options.ts'
import { pawlOptions } from '../pawl-options.ts'
import type { Database } from '../store/database/database.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { type ListOptions, listCommand, releaseCommand, showCommand } from './execution-commands.ts'
import { loadPawl } from './load-pawl.ts'
import { type MigrateCommandOptions, migrateCommand } from './migrate-command.ts'
import { workCommand } from './work-command.ts'
import { cancelCommand, type StorageOptions, signalCommand } from './workflow-commands.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

interface CommonOptions {
  databaseUrl?: string
  schema: string
}

/** Connects to the database, runs a command and prints its error, if it fails. */
async function runCommand(
  options: CommonOptions & { module?: string },
  command: (db: Database, schema: string, storage: StorageOptions) => Promise<void>,
) {
  let db: Database | undefined
  try {
    const { database, schema, storeTimeout, encryptionKeys, limits } =
      await resolveSettings(options)
    db = await openDatabase(database, storeTimeout)
    await command(db, schema, { encryptionKeys, limits })
  } catch (error) {
    report(error)
  } finally {
    await db?.close()
    // A module of the app may have timers or connections that would keep the process running.
    if (options.module) process.exit()
  }
}

/** The options of the app's Pawl if a module is given, else those of the command line. */
async function resolveSettings({
  module,
  databaseUrl,
  schema,
}: CommonOptions & { module?: string }) {
  if (module) return (await loadPawl(module)).internals.options
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
  console.error(`pawl: ${messageOf(error)}`)
  process.exitCode = 1
}

function messageOf(error: unknown): string {
  if (error instanceof PawlError) return error.message
  const { message, code } = error as Error & { code?: string }
  // A failed connection to a host with several addresses gives an error with a code and no message.
  return `${message || code}. Check --database-url, that PostgreSQL is running, and the privileges of the role.`
}

const program = new Command('pawl')
  .description('Durable idempotency and workflows: migrations, executions and workers.')
  .version(version)
  .addOption(
    new Option('-d, --database-url <url>', 'the PostgreSQL database of the app').env(
      'DATABASE_URL',
    ),
  )
  .option('-s, --schema <name>', 'the schema with the tables of Pawl', 'pawl')
  .showHelpAfterError('(run pawl --help for the list of commands and options)')

const commonOptions = () => program.opts<CommonOptions>()

program
  .command('migrate')
  .description('apply missing migrations while the app runs; safe in several processes at once')
  .option(
    '--lock-timeout <duration>',
    'how long a try waits for the lock of a table, while the app waits behind it (default: 1s)',
    parseDuration,
  )
  .option(
    '--give-up-after <duration>',
    'how long a stage is tried while it is blocked (default: 10 minutes)',
    parseDuration,
  )
  .action((options: MigrateCommandOptions) =>
    runCommand(commonOptions(), (db, schema) => migrateCommand(db, schema, options)),
  )

program
  .command('work <module>')
  .description('run the workflows of a module that exports the app’s Pawl, until SIGTERM or SIGINT')
  .option(
    '-c, --concurrency <count>',
    'how many workflows to run at a time (default: the setting of the app)',
    parseCount,
  )
  .action(async (module: string, { concurrency }: { concurrency?: number }) => {
    const given = program.getOptionValueSource('schema') === 'cli'
    const options = { ...(concurrency && { concurrency }), ...(given && { schema: schemaOf() }) }
    await workCommand(module, options).catch(report)
    process.exit()
  })

program
  .command('list')
  .description(
    'list the executions that need attention: interrupted, unknown, released, parked, or overdue because no process runs their workflow',
  )
  .option('--all', 'the latest executions, whatever their status')
  .option('--kind <kind>', 'only this kind: request, workflow or object')
  .option('--name <name>', 'only those of this route or workflow')
  .option('--status <status>', 'only with this status; several are separated by commas')
  .option('-n, --limit <count>', 'at most this many', parseCount, 20)
  .action((options: ListOptions) =>
    runCommand(commonOptions(), (db, schema) => listCommand(db, schema, options)),
  )

program
  .command('show <key>')
  .description('show the executions with this key or id, and their journals')
  .option('--scope <scope>', 'only in this scope')
  .action((key: string, options: { scope?: string }) =>
    runCommand(commonOptions(), (db, schema) => showCommand(db, schema, key, options.scope)),
  )

program
  .command('release <key>')
  .description(
    'free an execution that is unknown, interrupted or parked, given by its key or id: the next retry (or a worker) runs it again',
  )
  .option('--scope <scope>', 'the scope of the key', '')
  .action((key: string, options: { scope: string }) =>
    runCommand(commonOptions(), (db, schema) => releaseCommand(db, schema, key, options.scope)),
  )

program
  .command('signal <id> <name> [json]')
  .description('send a signal to a workflow; its value is JSON, true by default')
  .option(
    '--id <sender>',
    'the id of this signal; a signal sent twice with the same id arrives once',
  )
  .option(
    '-m, --module <file>',
    'a module that exports the app’s Pawl: its database and encryption keys are used',
  )
  .action((id: string, name: string, json: string | undefined, options) =>
    runCommand({ ...commonOptions(), module: options.module }, (db, schema, storage) => {
      const { id: sender } = options
      return signalCommand(
        db,
        schema,
        { id, name, ...(json && { json }), ...(sender && { sender }) },
        storage,
      )
    }),
  )

program
  .command('cancel <id>')
  .description('cancel a workflow and the workflows that it started: their compensations run')
  .action((id: string) =>
    runCommand(commonOptions(), (db, schema, storage) => cancelCommand(db, schema, id, storage)),
  )

function schemaOf(): string {
  return commonOptions().schema
}

function parseDuration(text: string): number {
  const { success, data } = positiveDuration.safeParse(text)
  if (success) return data
  throw new InvalidArgumentError('Give a duration, such as 500ms or 10 minutes.')
}

function parseCount(text: string): number {
  const number = Number(text)
  if (Number.isInteger(number) && number > 0) return number
  throw new InvalidArgumentError('Give a whole number from 1.')
}

await program.parseAsync()
