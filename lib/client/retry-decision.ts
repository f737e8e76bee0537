/** Decides from a response whether to retry the request. Serves fetch, axios and ky alike. */

/** The parts of a response that the decision needs, independent of the HTTP library. */
export interface ResponseView {
  readonly status: number
  header(name: string): string | null | undefined
  /** The `type` of the problem document (RFC 9457) in the body; undefined if the body is none. */
  problemType(): Promise<unknown>
}

/**
 * - `final`: return the response to the caller.
 * - `retry`: the server failed, or asked the client to come back.
 * - `wait`: the server is still running this very request.
 */
export type RetryDecision = 'final' | 'retry' | 'wait'

/** The 4xx statuses that ask the client to come back. */
const RETRYABLE_4XX = [408, 425, 429]
/** The 5xx statuses that another attempt cannot change. */
const PERMANENT_5XX = [501, 505, 506, 508, 510, 511]

/** Decides whether to retry; docs/client.md has the table. */
export async function decideRetry(response: ResponseView): Promise<RetryDecision> {
  const { status } = response
  // A replay is the recorded outcome, even if that is a 500: each retry would get it again.
  if (isReplayed(response)) return 'final'
  if (status === 409) {
    const type = await response.problemType()
    const isFromPawl = String(type).startsWith('urn:pawl:problem:')
    const isInProgress = isFromPawl
      ? type === 'urn:pawl:problem:in-progress'
      : response.header('Retry-After')
    return isInProgress ? 'wait' : 'final'
  }
  const failed = status < 500 ? RETRYABLE_4XX.includes(status) : !PERMANENT_5XX.includes(status)
  return failed ? 'retry' : 'final'
}

export function isReplayed(response: ResponseView): boolean {
  return response.header('Idempotent-Replayed') === 'true'
}

/** The `type` of a problem document; undefined if the text is not JSON or has no `type`. */
export function problemTypeIn(text: string): unknown {
  try {
    return JSON.parse(text)?.type
  } catch {
    return undefined
  }
}

/** @param response a response with an unread body, which stays unread */
export function viewOf(response: Response): ResponseView {
  return {
    status: response.status,
    header: (name) => response.headers.get(name),
    problemType: async () => problemTypeIn(await response.clone().text()),
  }
}
