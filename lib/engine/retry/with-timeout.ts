/**
 * The promise's value, or null if the time is up or the signal fires first.
 * @param keepAlive whether Node waits for the time to be up when nothing else is left to do
 */
export async function within<T>(
  ms: number,
  promise: Promise<T>,
  signal?: AbortSignal,
  keepAlive = true,
): Promise<T | null> {
  if (ms <= 0 || signal?.aborted) return null
  let timer: NodeJS.Timeout | undefined
  let giveUp = () => {}
  const over = new Promise<null>((resolve) => {
    giveUp = () => resolve(null)
    timer = setTimeout(giveUp, ms)
    if (!keepAlive) timer.unref()
    signal?.addEventListener('abort', giveUp)
  })
  try {
    return await Promise.race([promise, over])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', giveUp)
  }
}
