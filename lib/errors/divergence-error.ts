/** The error for code that no longer matches the journal that it replays. */

import { PawlError } from './pawl-error.ts'

/**
 * The code no longer matches the journal that it replays: a recorded step is now of another kind, or a
 * new step appeared where compensations had begun. Nothing was run and nothing was overwritten.
 */
export class DivergenceError extends PawlError {
  override readonly name = 'DivergenceError'

  constructor(message: string, hint: string) {
    super('divergence', message, hint)
  }
}
