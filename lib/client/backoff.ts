import type { Answer } from './retry-decision.ts'

export interface BackoffSettings {
  /** Milliseconds: the upper bound of the first delay; it doubles with each attempt. */
  baseDelay: number
  /** Milliseconds: the upper bound of them all. */
  maxDelay: number
  /** Milliseconds: a longer Retry-After is taken for this. */
  maxRetryAfter: number
}

/**
 * Milliseconds to wait before the next attempt: exponential with full jitter
 * (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and no earlier than
 * Retry-After asks for. The jitter is added to Retry-After: all clients were told the same moment.
 * @param attempts made so far, from 1
 */
export function delayAfter(
  attempts: number,
  answer: Answer | undefined,
  settings: BackoffSettings,
): number {
  const bound = Math.min(settings.maxDelay, settings.baseDelay * 2 ** (attempts - 1))
  const asked = Math.min(settings.maxRetryAfter, (answer && retryAfter(answer)) || 0)
  return asked + Math.random() * bound
}

/** Milliseconds that Retry-After asks for (RFC 9110, section 10.2.3); NaN if it cannot be read. */
function retryAfter(answer: Answer): number {
  const value = answer.header('Retry-After') ?? ''
  if (/^\d+$/.test(value)) return Number(value) * 1000
  // Against the server's own clock where it says it: the client's may be off by minutes.
  const now = Date.parse(answer.header('Date') ?? '') || Date.now()
  return Math.max(0, Date.parse(value) - now)
}

/** @throws the signal's reason, once it is aborted */
export function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, ms)
    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
  })
}
