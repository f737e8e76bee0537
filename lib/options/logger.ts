/** The interface of the `logger` option, and the logger that Pawl uses by default. */

import { debuglog } from 'node:util'

/**
 * Receives Pawl's log messages. `console`, winston and most loggers have this interface; for pino, pass
 * `{ debug: (message, fields) => log.debug(fields, message), … }`.
 */
export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void
  /** For what a person waits for: the progress of a migration. Without it, that goes to `debug`. */
  info?(message: string, fields?: Record<string, unknown>): void
  warn(message: string, fields?: Record<string, unknown>): void
}

const debug = debuglog('pawl')

/** Logs warnings and progress to the console, and debug messages to stderr if `NODE_DEBUG=pawl` is set. */
export const defaultLogger: Logger = {
  debug: (message, fields) => debug('%s %o', message, fields ?? {}),
  info: (message, fields) => console.info(`pawl: ${message}`, fields ?? {}),
  warn: (message, fields) => console.warn(`pawl: ${message}`, fields ?? {}),
}
