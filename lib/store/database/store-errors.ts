/** Turns the errors of database drivers into PawlErrors. */

import { PawlError } from '../../errors/index.ts'
import { classify } from './database.ts'
import { StatementError } from './statement-error.ts'

/**
 * Resolves to the same result; turns a driver's error into a PawlError.
 * @throws PawlError `store-refused`: the same statement would fail again; `store-unavailable`: it may succeed later
 */
export async function withStoreErrors<T>(result: Promise<T>): Promise<T> {
  try {
    return await result
  } catch (error) {
    const detail = (error as Error).message
    if (classify(error) === 'refused') {
      throw new PawlError(
        'store-refused',
        `PostgreSQL refused a statement of Pawl: ${detail}.`,
        'Check that the schema is intact (npx pawl migrate) and that the role may use it.',
        error,
      )
    }
    const isBusy = error instanceof StatementError && error.kind === 'busy'
    throw new PawlError(
      'store-unavailable',
      `${isBusy ? 'Pawl has no connection for a statement' : 'PostgreSQL cannot be reached'}: ${detail}.`,
      'Pawl continues by itself as soon as PostgreSQL answers; a client should retry with the same key.',
      error,
    )
  }
}
