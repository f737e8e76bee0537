/** Opens the database that the app passes to `new Pawl()`. */

import { PawlError } from '../../errors/index.ts'
import type { Database } from './database.ts'
import { detach } from './detached-database.ts'
import { NodePostgres, openPool, type PgPool } from './node-postgres.ts'
import { PGlite, type PGliteLike } from './pglite.ts'

/** The key of a method that opens a substitute database; the databases of `pawl/testing` have it. */
export const OPEN_DATABASE = Symbol.for('pawl.open-database')

interface SelfOpening {
  [OPEN_DATABASE](timeoutMs: number): Promise<Database>
}

/**
 * Opens a Database over a connection string, a `pg.Pool`, or a PGlite instance.
 * @param timeoutMs how long a statement may take, and how long connecting may take
 * @throws PawlError `invalid-option`
 */
export async function openDatabase(database: unknown, timeoutMs: number): Promise<Database> {
  if (typeof database === 'string') {
    return detach(new NodePostgres(await openPool(database, timeoutMs), timeoutMs, true))
  }
  if (typeof (database as SelfOpening)[OPEN_DATABASE] === 'function')
    return (database as SelfOpening)[OPEN_DATABASE](timeoutMs)
  // Only PGlite runs a script (exec); only a pool provides clients (connect).
  if (typeof (database as PGliteLike).exec === 'function')
    return detach(new PGlite(database as PGliteLike))
  if (typeof (database as PgPool).connect === 'function') {
    return detach(new NodePostgres(database as PgPool, timeoutMs, false))
  }
  throw new PawlError(
    'invalid-option',
    'new Pawl(): Option "database" is of an unknown kind.',
    'Give a pg.Pool, a connection string, or a PGlite instance.',
  )
}
