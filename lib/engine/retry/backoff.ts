import { setTimeout as sleep } from 'node:timers/promises'

/** How long to wait between tries, in ms. */
export interface Backoff {
  /** The first pause. It doubles with each try. */
  firstMs: number
  maxMs: number
}

/**
 * Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
 * @param tries how many tries have failed, from 1
 */
export function pauseAfter(tries: number, { firstMs, maxMs }: Backoff): number {
  return Math.min(maxMs, firstMs * 2 ** (tries - 1)) * Math.random()
}

/** Waits between tries; rejects with the signal's reason if it fires. Keeps no process alive. */
export async function backOff(tries: number, backoff: Backoff, signal?: AbortSignal) {
  const options = { ref: false, ...(signal && { signal }) }
  await sleep(pauseAfter(tries, backoff), undefined, options).catch((error) => {
    throw signal?.reason ?? error
  })
}
