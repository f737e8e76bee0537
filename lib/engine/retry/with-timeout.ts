/** Waits for a promise, but at most for a given time. */

/** A wait that has not ended. */
interface Waiter {
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
}

/**
 * The waits for each promise. A promise that lives for hours is waited for many times, and keeps each reaction
 * that `then`, `await` or `Promise.race` adds until it settles. So it gets one, and waits that time out are
 * removed from here.
 */
const waitersByPromise = new WeakMap<Promise<unknown>, Set<Waiter>>()

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
  const waiters = waitersByPromise.get(promise) ?? watch(promise)
  let timer: NodeJS.Timeout | undefined
  let giveUp = () => {}
  let waiter: Waiter | undefined
  try {
    return await new Promise<T | null>((resolve, reject) => {
      waiter = { resolve: resolve as Waiter['resolve'], reject }
      waiters.add(waiter)
      giveUp = () => resolve(null)
      timer = setTimeout(giveUp, ms)
      if (!keepAlive) timer.unref()
      signal?.addEventListener('abort', giveUp)
    })
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', giveUp)
    if (waiter) waiters.delete(waiter)
  }
}

/** Makes the promise end the waits for it. */
function watch(promise: Promise<unknown>): Set<Waiter> {
  const waiters = new Set<Waiter>()
  waitersByPromise.set(promise, waiters)
  const end = (settle: (waiter: Waiter) => void) => {
    waitersByPromise.delete(promise)
    for (const waiter of waiters) settle(waiter)
  }
  promise.then(
    (value) => end(({ resolve }) => resolve(value)),
    (error) => end(({ reject }) => reject(error)),
  )
  return waiters
}
