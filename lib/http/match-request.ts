/** Decides whether a request is protected, and finds its idempotency key. */

import { type ParsedKey, parseKeyHeader, validateKey } from './idempotency-key.ts'
import type { RequestView } from './request-view.ts'
import { keyMissingResponse, type PawlResponse } from './responses.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'

/** Whether Pawl protects a request. */
export type RequestMatch =
  | { kind: 'keyed'; key: ParsedKey }
  /** Not protected: the request passes untouched. */
  | { kind: 'pass' }
  /** Refused: the route requires a key. */
  | { kind: 'respond'; response: PawlResponse }

/**
 * Matches a request against the options of its route. A request that a worker delivers again is always
 * protected, since its key header may not have been stored.
 *
 * @param request the framework's request object, which the functions in the options receive
 * @throws errors of the app's `key` and `skip` functions
 */
export function matchRequest<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
): RequestMatch {
  const recovered = view.recoveredAttempt(runtime)
  if (recovered) return { kind: 'keyed', key: { key: recovered.execution.key } }
  const { methods, skip, required } = options
  if (methods !== 'all' && !methods.has(view.method)) return { kind: 'pass' }
  if (skip?.(request)) return { kind: 'pass' }
  const key = findKey(options, request, view)
  if (key) return { kind: 'keyed', key }
  if (!required) return { kind: 'pass' }
  return { kind: 'respond', response: keyMissingResponse(options.keyHeader) }
}

function findKey<Request>(
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
): ParsedKey | undefined {
  if (typeof options.key === 'function') {
    const key = options.key(request)
    return key === undefined || key === null ? undefined : validateKey(key)
  }
  const lines = view.headerLines(options.key)
  return lines.length > 0 ? parseKeyHeader(lines, options.strict) : undefined
}
