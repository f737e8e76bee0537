import { PawlError } from '../../errors/index.ts'
import { failedWith, type RunStatement } from './transaction-host.ts'

/**
 * Runs a statement of Pawl's, of at most one row with one column, inside a transaction of the app's.
 * @returns the column's value
 * @throws PawlError `schema-missing`, `store-refused`, `execution-gone` if the transaction is one of
 * another database, or of a role that may not use the schema; else whatever the app's library throws
 */
export async function runIn(
  run: RunStatement,
  sql: string,
  values: readonly (string | null)[],
): Promise<unknown> {
  let row: Record<string, unknown> | undefined
  try {
    row = (await run(sql, values))[0]
  } catch (error) {
    throw explain(error)
  }
  // By its place: a plugin of the library may have given the column another name.
  if (row) return Object.values(row)[0]
  throw new PawlError(
    'execution-gone',
    'The execution is not in the database of this transaction, and nothing was committed.',
    `${SAME_DATABASE} Rows of running executions must not be deleted.`,
  )
}

const SAME_DATABASE =
  'The journal is part of the transaction: what the on option names must be connected to the database that Pawl was given.'

/** Undefined table, schema and function: those of Pawl. */
const MISSING = ['42P01', '3F000', '42883']
const INSUFFICIENT_PRIVILEGE = ['42501']

function explain(error: unknown): unknown {
  if (failedWith(error, MISSING)) {
    return new PawlError(
      'schema-missing',
      'The database of this transaction has no schema of Pawl (or an outdated one), and nothing was committed.',
      SAME_DATABASE,
      error,
    )
  }
  if (failedWith(error, INSUFFICIENT_PRIVILEGE)) {
    return new PawlError(
      'store-refused',
      'The role of this transaction may not use the schema of Pawl, and nothing was committed.',
      'Grant it usage on the schema, execute on its functions, and select, insert, update and delete on its tables.',
      error,
    )
  }
  return error
}

/** Transactions that Pawl has handed out, and how statements run in them. */
const handedOut = new WeakMap<object, RunStatement>()

/** Notes how statements run in a transaction that is handed out. */
export function handOut(tx: unknown, run: RunStatement): void {
  if (typeof tx === 'object' && tx !== null) handedOut.set(tx, run)
  if (typeof tx === 'function') handedOut.set(tx, run)
}

/**
 * How statements run in a transaction of the app's: one that Pawl handed out, or a client of pg.
 * @throws PawlError `invalid-option`
 */
export function runStatementOf(tx: unknown): RunStatement {
  const run = handedOut.get(tx as object)
  if (run) return run
  const client = tx as { query?: (sql: string, values: unknown) => Promise<{ rows: never[] }> }
  if (typeof client?.query === 'function') {
    return async (sql, values) => (await client.query?.(sql, values))?.rows ?? []
  }
  throw new PawlError(
    'invalid-option',
    'The tx option is not a transaction that Pawl knows.',
    'Give a client of pg inside its transaction, or what transaction(name, { on }, fn) hands to fn.',
  )
}
