/** Determines the scope and the fingerprint of a request from the options of its route. */

import { PawlError } from '../errors/index.ts'
import { fingerprint, fingerprintValue, NotJsonError, type RequestBody } from './fingerprint.ts'
import type { BodyFailure, RequestView } from './request-view.ts'
import type { BodyRefusal } from './responses.ts'
import type { RouteOptions } from './route-options.ts'

/**
 * The scope of a request's key; empty if the app sets no `scope` option.
 * @throws PawlError `scope-invalid`
 */
export function resolveScope<Request>(options: RouteOptions<Request>, request: Request): string {
  if (!options.scope) return ''
  const value = options.scope(request)
  // Many callers would share the scope NaN, or an id that was rounded to the nearest number.
  const scope = Number.isSafeInteger(value) ? String(value) : value
  const valid = typeof scope === 'string' && scope !== '' && scope.length <= 1024
  if (valid && scope.isWellFormed() && !scope.includes('\0')) return scope
  throw new PawlError(
    'scope-invalid',
    `The scope option returned ${typeof scope === 'string' ? `a string of ${scope.length} characters` : String(scope)}.`,
    'It must return the tenant, account or user in 1 to 1024 characters. Mount idempotency() after authentication.',
  )
}

/**
 * The fingerprint of a request, or the reason why its body cannot be read.
 * @param readBody reads the request's body; not called if the `fingerprint` option is set
 * @throws PawlError `fingerprint-invalid`, `body-unreadable`: mistakes of the app
 */
export async function resolveFingerprint<Request>(
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
  readBody: () => Promise<RequestBody | BodyFailure>,
): Promise<Buffer | BodyRefusal | 'aborted'> {
  // Without a scope all callers share one namespace, so the credentials become part of the fingerprint.
  const credentials = options.scope
    ? undefined
    : view.header('authorization') || view.header('cookie')
  if (options.fingerprint) {
    const value = options.fingerprint(request)
    return computeFingerprint(
      () => fingerprintValue(value, credentials),
      (reason) =>
        new PawlError(
          'fingerprint-invalid',
          `The fingerprint option returned a value that cannot be compared: ${reason}.`,
          'It must return a string, bytes or a JSON value that is equal for equal requests.',
        ),
    )
  }
  const body = await readBody()
  if (body === 'consumed') {
    throw new PawlError(
      'body-unreadable',
      'The request body was read before idempotency() and is not in req.body, so two different requests could look the same.',
      'Mount idempotency() before the code that reads the body, or set the fingerprint option.',
    )
  }
  if (typeof body === 'string') return body
  const { method, url } = view
  const contentType = view.header('content-type')
  return computeFingerprint(
    () => fingerprint({ method, url, contentType, body }, credentials),
    (reason) =>
      new PawlError(
        'body-unreadable',
        `req.body cannot be compared: ${reason}.`,
        'Mount idempotency() before the parser that made it, or set the fingerprint option.',
      ),
  )
}

/**
 * Computes a fingerprint; `not-canonical` if the client sent a value without canonical JSON.
 * @param appError makes the error for a value that is not JSON at all, which is the app's mistake
 */
function computeFingerprint(
  compute: () => Buffer,
  appError: (reason: string) => PawlError,
): Buffer | 'not-canonical' {
  try {
    return compute()
  } catch (error) {
    if (error instanceof NotJsonError) throw appError(error.message)
    return 'not-canonical'
  }
}
