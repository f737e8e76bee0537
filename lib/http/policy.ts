/** Statuses that say "not now" or "not you": the same request may well succeed later. */
const NEVER_STORED = new Set([401, 403, 408, 425, 429])

/** Whether an attempt that ended without a final answer may be run again. */
export function isResumable(option: boolean | undefined): boolean {
  // A handler that journaled nothing may have done anything: only the app can say that running it
  // again is safe.
  return option ?? false
}

/** What becomes of a response: recorded and replayed, or sent once and the execution given back. */
export function fate(status: number, resumable: boolean): 'stored' | 'released' {
  if (NEVER_STORED.has(status)) return 'released'
  // A stored 5xx is replayed, as Stripe does: nobody knows what the handler did before it failed.
  if (isFailure(status)) return resumable ? 'released' : 'stored'
  return 'stored'
}

/** A failure may be recorded only by the current attempt. */
export function isFailure(status: number): boolean {
  return status >= 500
}
