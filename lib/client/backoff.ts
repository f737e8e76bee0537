/** Computes how long to wait before a retry, and waits. */

import type { ResponseView } from './retry-decision.ts'

/** The settings that determine the delay before a retry. */
export interface BackoffSettings {
  /** Milliseconds: the upper bound of the first delay. The bound doubles with each attempt. */
  baseDelay: number
  /** Milliseconds: the upper bound of every delay. */
  maxDelay: number
  /** Milliseconds: a longer Retry-After is shortened to this. */
  maxRetryAfter: number
}

/**
 * Milliseconds to wait before the next attempt: exponential with full jitter
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and no earlier than
 * Retry-After asks for. The jitter is added to Retry-After, since the server told all clients the same
 * moment.
 * @param attempts how many attempts were made, from 1
 */
export function retryDelay(
  attempts: number,
  response: ResponseView | undefined,
  settings: BackoffSettings,
): number {
  const bound = Math.min(settings.maxDelay, settings.baseDelay * 2 ** (attempts - 1))
  const requested = Math.min(settings.maxRetryAfter, (response && retryAfterMs(response)) || 0)
  return requested + Math.random() * bound
}

/** Milliseconds that Retry-After asks for (RFC 9110, section 10.2.3); NaN if it cannot be parsed. */
function retryAfterMs(response: ResponseView): number {
  const value = response.header('Retry-After') ?? ''
  if (/^\d+$/.test(value)) return Number(value) * 1000
  // A date is compared with the server's own clock, if the response has it: the client's clock may be
  // minutes off.
  const now = Date.parse(response.header('Date') ?? '') || Date.now()
  return Math.max(0, Date.parse(value) - now)
}

/** @throws the signal's reason when the signal is aborted */
export function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
  })
}
