/** Decides from a response's status whether it is recorded as the outcome or only sent once. */

/** Statuses that say "not now" or "not you": the same request may succeed later. */
const NEVER_STORED = new Set([401, 403, 408, 425, 429])

/** The facts about an attempt on which the disposition of its response depends. */
export interface AttemptFacts {
  /** Whether another attempt may run the handler again. */
  isResumable: boolean
  /** Whether a step has failed permanently, so that every later attempt would fail too. */
  hasTerminalFailure: boolean
}

/**
 * `stored`: the response is recorded as the outcome, and retries get it. `released`: the response is sent
 * once, and the next retry runs the handler again.
 */
export function dispositionOf(status: number, attempt: AttemptFacts): 'stored' | 'released' {
  if (NEVER_STORED.has(status)) return 'released'
  if (!isServerError(status)) return 'stored'
  // If no step is recorded, the effects of the handler before it failed are unknown. Its 5xx is therefore
  // stored and replayed, as Stripe does. Otherwise a retry resumes, unless it could only fail again.
  return attempt.isResumable && !attempt.hasTerminalFailure ? 'released' : 'stored'
}

/** Whether the status is a 5xx; only the current attempt may record such a response. */
export function isServerError(status: number): boolean {
  return status >= 500
}

/** Whether the status is a 4xx or 5xx; before such a response is recorded, the compensations run. */
export function isErrorStatus(status: number): boolean {
  return status >= 400
}
