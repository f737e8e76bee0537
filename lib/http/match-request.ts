import { type Answer, keyMissing } from './responses.ts'
import { checkKey, type ParsedKey, parseKeyHeader } from './idempotency-key.ts'
import type { RequestView } from './request-view.ts'
import type { RouteOptions } from './route-options.ts'
import type { RequestRuntime } from './runtime.ts'

/** Whether a request is protected, and under which key. */
export type Selected =
  | { kind: 'keyed'; key: ParsedKey }
  /** It passes untouched. */
  | { kind: 'pass' }
  | { kind: 'answer'; answer: Answer }

/**
 * What a worker hands to the app again is protected, whatever became of its headers.
 *
 * @param request the framework's own, for the app's functions
 * @throws whatever the app's `key` and `skip` functions throw
 */
export function select<Request>(
  runtime: RequestRuntime,
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
): Selected {
  const recovered = view.recovered(runtime)
  if (recovered) return { kind: 'keyed', key: { key: recovered.execution.key } }
  const { methods, skip, required } = options
  if (methods !== 'all' && !methods.has(view.method)) return { kind: 'pass' }
  if (skip?.(request)) return { kind: 'pass' }
  const key = keyOf(options, request, view)
  if (key) return { kind: 'keyed', key }
  return required ? { kind: 'answer', answer: keyMissing(options.keyHeader) } : { kind: 'pass' }
}

function keyOf<Request>(
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
): ParsedKey | undefined {
  if (typeof options.key === 'function') {
    const key = options.key(request)
    return key === undefined || key === null ? undefined : checkKey(key)
  }
  const lines = view.headerLines(options.key)
  return lines.length > 0 ? parseKeyHeader(lines, options.strict) : undefined
}
