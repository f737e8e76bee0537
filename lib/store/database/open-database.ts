/** Opens the database that the app passes to `new Pawl()`. */

import { PawlError } from '../../errors/index.ts'
import type { Database } from './database.ts'
import { detach } from './detached-database.ts'
import { NodePostgres } from './node-postgres.ts'
import { openPool, type PgPool } from './pg-pool.ts'
import { PGlite, type PGliteLike } from './pglite.ts'

/** The key of a method that opens a substitute database; the databases of `pawl/testing` have it. */
export const OPEN_DATABASE = Symbol.for('pawl.open-database')

interface SelfOpening {
  [OPEN_DATABASE](timeoutMs: number): Promise<Database>
}

/**
 * Opens a Database over a connection string, a `pg.Pool`, or a PGlite instance.
 * @param timeoutMs how long a statement may take, with the wait for its connection, in ms
 * @param maxConnections how many connections Pawl may open for its own statements. Default 5
 * @throws PawlError `invalid-option`
 */
export async function openDatabase(
  database: unknown,
  timeoutMs: number,
  maxConnections?: number,
): Promise<Database> {
  if (typeof database === 'string') {
    const pool = await openPool(database)
    return detach(new NodePostgres(pool, timeoutMs, true, maxConnections))
  }
  if (typeof (database as SelfOpening)[OPEN_DATABASE] === 'function')
    return (database as SelfOpening)[OPEN_DATABASE](timeoutMs)
  // Only PGlite runs a script (exec); only a pool provides clients (connect).
  if (typeof (database as PGliteLike).exec === 'function')
    return detach(new PGlite(database as PGliteLike, timeoutMs))
  if (typeof (database as PgPool).connect === 'function') {
    return detach(new NodePostgres(database as PgPool, timeoutMs, false, maxConnections))
  }
  throw new PawlError(
    'invalid-option',
    'new Pawl(): Option "database" is of an unknown kind.',
    'Give a pg.Pool, a connection string, or a PGlite instance.',
  )
}
