import { PawlError } from '../../errors/index.ts'
import type { Database } from './database.ts'
import { NodePostgres, openPool, type PgPool } from './node-postgres.ts'
import { PGlite, type PGliteLike } from './pglite.ts'

/** Under this symbol, what stands in for a database opens itself: the databases of `pawl/testing`. */
export const OPEN = Symbol.for('pawl.open-database')

interface Opens {
  [OPEN](timeoutMs: number): Promise<Database>
}

/**
 * The Database behind what an app gives: a connection string, a `pg.Pool`, or a PGlite instance.
 * @param timeoutMs how long a statement, and a connection, may take
 * @throws PawlError `invalid-option`
 */
export async function openDatabase(database: unknown, timeoutMs: number): Promise<Database> {
  if (typeof database === 'string') {
    return new NodePostgres(await openPool(database, timeoutMs), timeoutMs, true)
  }
  if (typeof (database as Opens)[OPEN] === 'function') return (database as Opens)[OPEN](timeoutMs)
  // PGlite is the one that runs a script (exec); a pool is the one that gives clients (connect).
  if (typeof (database as PGliteLike).exec === 'function') return new PGlite(database as PGliteLike)
  if (typeof (database as PgPool).connect === 'function') {
    return new NodePostgres(database as PgPool, timeoutMs, false)
  }
  throw new PawlError(
    'invalid-option',
    'new Pawl(): Option "database" is of an unknown kind.',
    'Give a pg.Pool, a connection string, or a PGlite instance.',
  )
}
