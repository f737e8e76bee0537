import { debuglog } from 'node:util'

/**
 * Where Pawl says what it does. `console`, winston and most loggers fit; for pino give
 * `{ debug: (message, fields) => log.debug(fields, message), … }`.
 */
export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void
  warn(message: string, fields?: Record<string, unknown>): void
}

const debug = debuglog('pawl')

/** Warnings go to the console; progress shows with `NODE_DEBUG=pawl`. */
export const defaultLogger: Logger = {
  debug: (message, fields) => debug('%s %o', message, fields ?? {}),
  warn: (message, fields) => console.warn(`pawl: ${message}`, fields ?? {}),
}
