/** Waits for a reply of the database, but no longer than until a deadline or an abort. */

/** What `inTime` rejects with. */
export const LATE = Symbol('late')

/**
 * Resolves or rejects as the promise does; rejects with LATE after `ms`, unless that is infinite, and when the signal
 * fires. If the event loop stood still until then, what has arrived meanwhile is read first: a busy process is no
 * reason to think that the database is away.
 */
export async function inTime<T>(ms: number, promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (ms === Number.POSITIVE_INFINITY && !signal) return promise
  let timer: NodeJS.Timeout | undefined
  let onAbort = () => {}
  const late = new Promise<never>((_, reject) => {
    // Timers run before the phase that reads sockets, and setImmediate after it.
    if (ms !== Number.POSITIVE_INFINITY) timer = setTimeout(() => setImmediate(reject, LATE), ms)
    onAbort = () => reject(LATE)
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
