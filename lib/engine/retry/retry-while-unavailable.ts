/** Repeats a database operation while PostgreSQL is unavailable. */

import { PawlError } from '../../errors/index.ts'
import { backOff } from '../../store/database/backoff.ts'
import { alsoSentBefore } from '../../store/database/statement-error.ts'

const BACKOFF = { firstMs: 20, maxMs: 1000 }

/**
 * Repeats a store operation while it fails with `store-unavailable`, with exponential backoff and full
 * jitter, until `giveUp` returns true. The operation must be safe to send twice; all of the store's are.
 * @throws the last PawlError
 */
export async function retryWhileUnavailable<T>(
  operation: () => Promise<T>,
  giveUp: () => boolean,
): Promise<T> {
  const earlier: unknown[] = []
  for (let tries = 1; ; tries++) {
    try {
      return await operation()
    } catch (error) {
      const isRetryable = error instanceof PawlError && error.code === 'store-unavailable'
      if (!isRetryable || giveUp()) {
        alsoSentBefore(error, earlier)
        throw error
      }
      earlier.push(error)
    }
    await backOff(tries, BACKOFF)
  }
}

/** Returns a `giveUp` function that returns true from `ms` milliseconds after this call. */
export function deadlineAfter(ms: number): () => boolean {
  const deadline = performance.now() + ms
  return () => performance.now() >= deadline
}

/**
 * Repeats a store operation while it fails with `store-unavailable`, for at most `ms` milliseconds or until
 * `isStopped` returns true.
 * @throws the last PawlError
 */
export function retryWhileUnavailableFor<T>(
  ms: number,
  operation: () => Promise<T>,
  isStopped: () => boolean = () => false,
): Promise<T> {
  const isOver = deadlineAfter(ms)
  return retryWhileUnavailable(operation, () => isStopped() || isOver())
}
