/** Encodes a request for the store, so that a worker can deliver it to the app again after a crash. */

import { decodeValue, encodeValue } from '../engine/values/value-codec.ts'
import { PawlError } from '../errors/index.ts'
import { isCredentialHeader, withoutCredentialParameters } from './credentials.ts'
import type { RequestBody } from './fingerprint.ts'
import type { RequestView } from './request-view.ts'

/** Headers that belong to the original connection, or that the new delivery sets itself. */
const CONNECTION_HEADERS =
  /^(connection|content-length|expect|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/i

const CHARSET = /;\s*charset=("[^"]*"|[^\s;]+)/i

/** A request without the credentials of its sender. */
export interface StoredRequest {
  method: string
  /** Path and query. */
  url: string
  headers: [name: string, value: string][]
  body: Buffer
}

/**
 * Encodes a request without its credentials.
 * @throws PawlError `recovery-impossible` if a parser has read the body and its bytes cannot be restored
 */
export function encodeStoredRequest(view: RequestView, body: RequestBody | 'consumed'): Buffer {
  const kept = view
    .allHeaders()
    .filter(([name]) => !isCredentialHeader(name) && !CONNECTION_HEADERS.test(name))
  const headers = kept.flatMap(([name, value]) => headerForStoredBody(name, value, body))
  const { method, url } = view
  const stored: StoredRequest = {
    method,
    url: withoutCredentialParameters(url),
    headers,
    body: bytesOf(body, view),
  }
  return encodeValue(stored) as Buffer
}

/** Decodes the bytes that `encodeStoredRequest` returned. */
export function decodeStoredRequest(bytes: Buffer): StoredRequest {
  return decodeValue(bytes) as StoredRequest
}

function bytesOf(body: RequestBody | 'consumed', view: RequestView): Buffer {
  if (typeof body === 'object' && 'raw' in body) return Buffer.concat(body.raw)
  const parsed = typeof body === 'object' ? body.parsed : undefined
  if (typeof parsed === 'string') return Buffer.from(parsed)
  const type = view.header('content-type') ?? ''
  if (parsed !== undefined && /^application\/([\w.-]+\+)?json\b/i.test(type)) {
    return Buffer.from(JSON.stringify(parsed))
  }
  throw new PawlError(
    'recovery-impossible',
    'The request body was read before idempotency(), so its bytes cannot be stored for recovery.',
    'Mount idempotency() before the body parser on routes with recover: true.',
  )
}

/** Adapts a header to the stored body: after a parser the body is not compressed, and its text is UTF-8. */
function headerForStoredBody(
  name: string,
  value: string,
  body: RequestBody | 'consumed',
): [string, string][] {
  if (typeof body !== 'object' || ('raw' in body && !body.decoded)) return [[name, value]]
  if (/^content-encoding$/i.test(name)) return []
  if (!/^content-type$/i.test(name) || 'raw' in body) return [[name, value]]
  if (typeof body.parsed !== 'string' && !CHARSET.test(value)) return [[name, value]]
  return [[name, `${value.replace(CHARSET, '')}; charset=utf-8`]]
}
