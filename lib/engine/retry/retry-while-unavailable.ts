import { PawlError } from '../../errors/index.ts'
import { backOff } from './backoff.ts'

const BACKOFF = { firstMs: 20, maxMs: 1000 }

/**
 * Repeats a store operation while the store is unavailable, with exponential backoff and full
 * jitter, until `giveUp` says so. Every operation of the store may be sent twice.
 * @throws the last PawlError
 */
export async function persist<T>(operation: () => Promise<T>, giveUp: () => boolean): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await operation()
    } catch (error) {
      const worthwhile = error instanceof PawlError && error.code === 'store-unavailable'
      if (!worthwhile || giveUp()) throw error
    }
    await backOff(tries, BACKOFF)
  }
}

/** A `giveUp` that says yes once the time is up. */
export function after(ms: number): () => boolean {
  const deadline = performance.now() + ms
  return () => performance.now() >= deadline
}
