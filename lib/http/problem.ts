/** Builds problem documents (RFC 9457): which problems exist, with their status, title and Retry-After. */

/** The problems that Pawl reports; each is the end of a `type` URN and a heading in docs/problems.md. */
export type ProblemCode =
  | 'key-missing'
  | 'key-malformed'
  | 'request-mismatch'
  | 'in-progress'
  | 'outcome-unknown'
  | 'timed-out'
  | 'store-unavailable'
  | 'body-too-large'
  | 'body-unreadable'
  | 'body-not-kept'
  | 'handler-failed'
  | 'execution-not-found'
  | 'method-not-allowed'

/** A problem document with its status and headers. */
export interface Problem {
  status: number
  headers: Record<string, string>
  body: Buffer
}

interface ProblemType {
  status: number
  title: string
  /** The Retry-After header, in seconds. */
  retryAfter?: number
}

const PROBLEM_TYPES: Record<ProblemCode, ProblemType> = {
  'key-missing': { status: 400, title: 'An idempotency key is required' },
  'key-malformed': { status: 400, title: 'The idempotency key is malformed' },
  'request-mismatch': { status: 422, title: 'The idempotency key was used for another request' },
  'in-progress': {
    status: 409,
    title: 'A request with this idempotency key is in progress',
    retryAfter: 1,
  },
  'outcome-unknown': { status: 409, title: 'The outcome of an earlier attempt is unknown' },
  'timed-out': { status: 504, title: 'The request took too long', retryAfter: 5 },
  'store-unavailable': {
    status: 503,
    title: 'The idempotency store cannot be reached',
    retryAfter: 2,
  },
  'body-too-large': { status: 413, title: 'The request body is too large' },
  'body-unreadable': { status: 400, title: 'The request body cannot be read' },
  'body-not-kept': { status: 200, title: 'The response body was not kept' },
  'handler-failed': { status: 500, title: 'The request could not be carried out' },
  'execution-not-found': { status: 404, title: 'There is no such execution' },
  'method-not-allowed': { status: 405, title: 'The method is not allowed' },
}

/** The URI of an execution, the `instance` of the problems about it. */
export function executionUri(id: string): string {
  return `urn:uuid:${id}`
}

/**
 * @param detail what the client should do, and what happened
 * @param instance a URI that names this occurrence (RFC 9457, section 3.1.5)
 * @param statusOverride the status, if it depends on the case. Default: that of the problem type
 */
export function createProblem(
  code: ProblemCode,
  detail: string,
  instance: string,
  statusOverride?: number,
): Problem {
  const { status: defaultStatus, title, retryAfter } = PROBLEM_TYPES[code]
  const status = statusOverride ?? defaultStatus
  return {
    status,
    headers: {
      'Content-Type': 'application/problem+json; charset=utf-8',
      'Cache-Control': 'no-store',
      ...(retryAfter !== undefined && { 'Retry-After': String(retryAfter) }),
    },
    body: Buffer.from(
      JSON.stringify({
        type: `urn:pawl:problem:${code}`,
        title,
        status,
        detail,
        instance,
        // An extension member (RFC 9457, section 3.2). Clients made for Stripe's API recognize an error by
        // this member alone, and would take a response without it for the object that they requested.
        ...(status >= 400 && { error: { type: 'idempotency_error', code, message: detail } }),
      }),
    ),
  }
}
