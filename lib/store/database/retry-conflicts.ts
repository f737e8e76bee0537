import { classify } from './database.ts'
import { isConflict } from './transaction-host.ts'

/** Runs work again that lost against concurrent work. */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries >= 5 || !(classify(error) === 'conflict' || isConflict(error))) throw error
    }
  }
}
