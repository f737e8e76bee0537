/** Retries database work that failed with a serialization failure or a deadlock. */

import { classify } from './database.ts'
import { isConflict } from './transaction-host.ts'

/** Runs `work` up to five times, until it does not fail with a serialization failure or a deadlock. */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries >= 5 || !(classify(error) === 'conflict' || isConflict(error))) throw error
    }
  }
}
