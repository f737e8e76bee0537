/** Runs transactions of the app, and Pawl's statements inside them, and explains why one fails there. */

import { PawlError } from '../../errors/index.ts'
import { revocableHandle } from './revocable-handle.ts'
import {
  hasSqlState,
  type IsolationLevel,
  type RunStatement,
  type TransactionHost,
} from './transaction-host.ts'

/**
 * Runs a statement of Pawl, which returns at most one row with one column, inside a transaction of the app.
 * @returns the column's value
 * @throws PawlError `schema-missing` or `execution-gone` if the transaction belongs to another database;
 * `store-refused` if its role may not use the schema; otherwise the error of the app's library
 */
export async function runInTransaction(
  run: RunStatement,
  sql: string,
  values: readonly (string | null)[],
): Promise<unknown> {
  let row: Record<string, unknown> | undefined
  try {
    row = (await run(sql, values))[0]
  } catch (error) {
    throw toPawlError(error)
  }
  // By position: a plugin of the library may have renamed the column.
  if (row) return Object.values(row)[0]
  throw new PawlError(
    'execution-gone',
    'The execution is not in the database of this transaction. Nothing was committed.',
    `${SAME_DATABASE} Rows of running executions must not be deleted.`,
  )
}

const SAME_DATABASE =
  'The journal is written in the same transaction: the `on` option must be connected to the database that was passed to new Pawl().'

/** SQLSTATEs of an undefined table, schema and function: Pawl's own are missing. */
const UNDEFINED_OBJECT = ['42P01', '3F000', '42883']
const INSUFFICIENT_PRIVILEGE = ['42501']

function toPawlError(error: unknown): unknown {
  if (hasSqlState(error, UNDEFINED_OBJECT)) {
    return new PawlError(
      'schema-missing',
      'The database of this transaction has no schema of Pawl, or an outdated one. Nothing was committed.',
      SAME_DATABASE,
      error,
    )
  }
  if (hasSqlState(error, INSUFFICIENT_PRIVILEGE)) {
    return new PawlError(
      'store-refused',
      'The role of this transaction may not use the schema of Pawl. Nothing was committed.',
      'Grant it usage on the schema, execute on its functions, and select, insert, update and delete on its tables.',
      error,
    )
  }
  return error
}

/** A transaction of the app that Pawl runs. */
interface AppTransaction {
  /** Runs Pawl's statements in it. */
  run: RunStatement
  /** Called once it has ended. */
  onEnd: (() => void)[]
}

/** By the handle that the app gets. */
const transactions = new WeakMap<object, AppTransaction>()

/**
 * Runs `work` in a transaction of the app. The handle that `work` gets throws after the transaction's end.
 * @param isolation default: the host's default
 */
export async function runAppTransaction<Tx, T>(
  host: TransactionHost<Tx>,
  work: (tx: Tx, run: RunStatement) => Promise<T>,
  isolation: IsolationLevel | undefined,
): Promise<T> {
  const onEnd: (() => void)[] = []
  try {
    return await host.transaction(async (tx, run) => {
      const { handle, revoke } = revocableHandle(tx)
      transactions.set(handle as object, { run, onEnd })
      try {
        return await work(handle, run)
      } finally {
        revoke()
      }
    }, isolation)
  } finally {
    for (const ended of onEnd) ended()
  }
}

/**
 * Calls `onEnd` once the transaction has ended, also if it was rolled back: the reply of a commit may be lost.
 * @returns false if the app runs the transaction itself, so that Pawl does not learn of its end
 */
export function afterTransaction(tx: unknown, onEnd: () => void): boolean {
  const transaction = transactions.get(tx as object)
  transaction?.onEnd.push(onEnd)
  return transaction !== undefined
}

/**
 * Returns the function that runs Pawl's statements in `tx`: a transaction that Pawl passed to the app, or a
 * client of node-postgres.
 * @throws PawlError `invalid-option`
 */
export function runStatementOf(tx: unknown): RunStatement {
  const run = transactions.get(tx as object)?.run
  if (run) return run
  const client = tx as { query?: (sql: string, values: unknown) => Promise<{ rows: never[] }> }
  if (typeof client?.query === 'function') {
    return async (sql, values) => (await client.query?.(sql, values))?.rows ?? []
  }
  throw new PawlError(
    'invalid-option',
    'The tx option is not a transaction that Pawl knows.',
    'Pass a client of pg inside its transaction, or the transaction that transaction(name, { on }, fn) passes to fn.',
  )
}
