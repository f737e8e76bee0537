/** Retries database work that failed with a serialization failure or a deadlock. */

import { setTimeout as sleep } from 'node:timers/promises'
import { delayAfter } from './backoff.ts'
import { classify } from './database.ts'
import { isConflict } from './transaction-host.ts'

const MAX_TRIES = 5

/** The pause between tries, so that those that conflicted do not conflict again. */
const BACKOFF = { firstMs: 10, maxMs: 200 }

/**
 * Runs `work` up to five times, until it does not fail with a serialization failure or a deadlock, with exponential
 * backoff and full jitter in between.
 */
export async function retryConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries >= MAX_TRIES || !(classify(error) === 'conflict' || isConflict(error))) throw error
    }
    await sleep(delayAfter(tries, BACKOFF))
  }
}
