/** The promise's value, or null if the time is up or the signal fires first. */
export async function within<T>(
  ms: number,
  promise: Promise<T>,
  signal?: AbortSignal,
): Promise<T | null> {
  if (ms <= 0 || signal?.aborted) return null
  let timer: NodeJS.Timeout | undefined
  let giveUp = () => {}
  const over = new Promise<null>((resolve) => {
    giveUp = () => resolve(null)
    timer = setTimeout(giveUp, ms)
    signal?.addEventListener('abort', giveUp)
  })
  try {
    return await Promise.race([promise, over])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', giveUp)
  }
}
