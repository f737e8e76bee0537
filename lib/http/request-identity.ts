import { PawlError } from '../errors/index.ts'
import type { RefusedBody } from './responses.ts'
import { type Body, customFingerprint, fingerprint, NotJson } from './fingerprint.ts'
import type { BodyFailure, RequestView } from './request-view.ts'
import type { RouteOptions } from './route-options.ts'

/**
 * The namespace of a request's key; empty if the app names none.
 * @throws PawlError `scope-invalid`
 */
export function scopeOf<Request>(options: RouteOptions<Request>, request: Request): string {
  if (!options.scope) return ''
  const value = options.scope(request)
  // NaN, or an id that was rounded, would be everybody's.
  const scope = Number.isSafeInteger(value) ? String(value) : value
  const valid = typeof scope === 'string' && scope !== '' && scope.length <= 1024
  if (valid && scope.isWellFormed() && !scope.includes('\0')) return scope
  throw new PawlError(
    'scope-invalid',
    `The scope option returned ${typeof scope === 'string' ? `a string of ${scope.length} characters` : String(scope)}.`,
    'It must name the tenant, account or user in 1 to 1024 characters; mount idempotency() behind authentication.',
  )
}

/**
 * What makes a request the same as another.
 * @param readBody reads the request's body
 * @throws PawlError `fingerprint-invalid`, `body-unreadable`: mistakes of the app
 */
export async function fingerprintOf<Request>(
  options: RouteOptions<Request>,
  request: Request,
  view: RequestView,
  readBody: () => Promise<Body | BodyFailure>,
): Promise<Buffer | RefusedBody | 'aborted'> {
  // Without a scope a key is everybody's: who presents it becomes part of what it names.
  const credentials = options.scope
    ? undefined
    : view.header('authorization') || view.header('cookie')
  if (options.fingerprint) {
    const value = options.fingerprint(request)
    return canonical(
      () => customFingerprint(value, credentials),
      (why) =>
        new PawlError(
          'fingerprint-invalid',
          `The fingerprint option returned what cannot be compared: ${why}.`,
          'It must return what makes two requests the same: a string, bytes, or a JSON value.',
        ),
    )
  }
  const body = await readBody()
  if (body === 'consumed') {
    throw new PawlError(
      'body-unreadable',
      'The request body was read before idempotency() and is not in req.body, so two different requests could look the same.',
      'Mount idempotency() before whatever reads the body, or give the fingerprint option.',
    )
  }
  if (typeof body === 'string') return body
  const { method, url } = view
  const contentType = view.header('content-type')
  return canonical(
    () => fingerprint({ method, url, contentType, body }, credentials),
    (why) =>
      new PawlError(
        'body-unreadable',
        `req.body cannot be compared: ${why}.`,
        'Mount idempotency() before the parser that made it, or give the fingerprint option.',
      ),
  )
}

/** @param mistake what to throw if the value is no JSON, which the client cannot help */
function canonical(
  print: () => Buffer,
  mistake: (why: string) => PawlError,
): Buffer | 'not-canonical' {
  try {
    return print()
  } catch (error) {
    if (error instanceof NotJson) throw mistake(error.message)
    return 'not-canonical'
  }
}
