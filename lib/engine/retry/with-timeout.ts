/** Waits for a promise, but at most for a given time. */

/**
 * Resolves to the promise's value, or to null on timeout or abort.
 * @param ms the timeout in ms; 0 or less resolves to null at once
 * @param keepAlive whether the timer keeps the Node process alive
 */
export async function withTimeout<T>(
  ms: number,
  promise: Promise<T>,
  signal?: AbortSignal,
  keepAlive = true,
): Promise<T | null> {
  if (ms <= 0 || signal?.aborted) return null
  let timer: NodeJS.Timeout | undefined
  let giveUp = () => {}
  const timedOut = new Promise<null>((resolve) => {
    giveUp = () => resolve(null)
    timer = setTimeout(giveUp, ms)
    if (!keepAlive) timer.unref()
    signal?.addEventListener('abort', giveUp)
  })
  try {
    return await Promise.race([promise, timedOut])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', giveUp)
  }
}
