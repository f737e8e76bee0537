/** Statuses that say "not now" or "not you": the same request may well succeed later. */
const NEVER_STORED = new Set([401, 403, 408, 425, 429])

/** What is known of the attempt that answers. */
export interface Standing {
  /** Whether the execution may be run again after it. */
  isResumable: boolean
  /** Whether a step has failed for good. */
  hasFailed: boolean
}

/** What becomes of a response: recorded and replayed, or sent once and the execution given back. */
export function fate(status: number, attempt: Standing): 'stored' | 'released' {
  if (NEVER_STORED.has(status)) return 'released'
  if (!isFailure(status)) return 'stored'
  // Where nothing is journaled a 5xx is stored and replayed, as Stripe does: nobody knows what the
  // handler did before it failed. Elsewhere a retry resumes, unless it could only fail again.
  return attempt.isResumable && !attempt.hasFailed ? 'released' : 'stored'
}

/** A failure may be recorded only by the current attempt. */
export function isFailure(status: number): boolean {
  return status >= 500
}

/** A final answer that says that the request failed: what it has done is undone. */
export function isError(status: number): boolean {
  return status >= 400
}
