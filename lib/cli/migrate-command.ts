/** The `migrate` command of the command line. */

import { PawlError } from '../errors/index.ts'
import type { Database } from '../store/database/database.ts'
import { migrate } from '../store/migrate.ts'

/** Options of `migrate`, in ms. */
export interface MigrateCommandOptions {
  lockTimeout?: number
  giveUpAfter?: number
}

/**
 * Applies the missing migrations and prints their names. Says on stderr what it applies and waits for. Ctrl-C cancels
 * the statement that is under way; the next call continues there.
 */
export async function migrateCommand(
  db: Database,
  schema: string,
  { lockTimeout, giveUpAfter }: MigrateCommandOptions,
): Promise<void> {
  const interrupt = new AbortController()
  const stop = (signal: NodeJS.Signals) => {
    const hint = 'Run `npx pawl migrate` again: it continues where it stopped.'
    interrupt.abort(new PawlError('stopping', `Stopped by ${signal}.`, hint))
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  const say = (message: string) => console.error(message)
  const logger = { debug: say, info: say, warn: say }
  try {
    const applied = await migrate(db, schema, {
      logger,
      signal: interrupt.signal,
      ...(lockTimeout && { lockTimeoutMs: lockTimeout }),
      ...(giveUpAfter && { giveUpMs: giveUpAfter }),
    })
    for (const name of applied) console.log(`applied ${name}`)
    if (applied.length === 0) console.log(`Schema "${schema}" is up to date.`)
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}
