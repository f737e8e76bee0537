/** Computes and waits for the pauses between retries: exponential backoff with full jitter. */

import { setTimeout as sleep } from 'node:timers/promises'

/** The pauses between tries, in ms. */
export interface Backoff {
  /** The longest first pause; it doubles with each try. */
  firstMs: number
  maxMs: number
}

/**
 * Returns the pause before the next try in ms: exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
 * @param tries how many tries have failed, from 1
 */
export function delayAfter(tries: number, { firstMs, maxMs }: Backoff): number {
  return Math.min(maxMs, firstMs * 2 ** (tries - 1)) * Math.random()
}

/** Waits for the pause; rejects with the signal's reason if it fires. Does not keep the process alive. */
export async function backOff(tries: number, backoff: Backoff, signal?: AbortSignal) {
  const options = { ref: false, ...(signal && { signal }) }
  await sleep(delayAfter(tries, backoff), undefined, options).catch((error) => {
    throw signal?.reason ?? error
  })
}
