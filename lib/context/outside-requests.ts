/** Runs Pawl's own work outside the async contexts of the app's requests. */

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'

const runInPackageContext = AsyncLocalStorage.snapshot()

/**
 * Runs a function in the async context of the time at which this package was loaded. The app's AsyncLocalStorages
 * (the tenant, the user, the trace of a request) have no store there, so that nothing that outlives the calling
 * request runs in its context, or keeps its context in memory.
 */
export function runOutsideRequests<T>(work: () => T): T {
  // In a resource of its own: AsyncLocalStorage.enterWith() in `work` must not change the package's context.
  return runInPackageContext(() => new AsyncResource('PAWL').runInAsyncScope(work))
}
