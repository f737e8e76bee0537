import { decodeValue, encodeValue } from '../engine/values/value-codec.ts'
import { PawlError } from '../errors/index.ts'
import { isCredential, withoutCredentials } from './credentials.ts'
import type { Body } from './fingerprint.ts'
import type { RequestView } from './request-view.ts'

/** What belongs to the connection, or is made anew. */
const OF_THE_MESSAGE =
  /^(connection|content-length|expect|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/i

const CHARSET = /;\s*charset=("[^"]*"|[^\s;]+)/i

/** A request to be handed to the app again: what it is, and not who sent it. */
export interface StoredRequest {
  method: string
  /** Path and query. */
  url: string
  headers: [name: string, value: string][]
  body: Buffer
}

/**
 * A request as it is stored: without credentials.
 * @throws PawlError `recovery-impossible` if nothing tells what the bytes of its body were
 */
export function storedRequest(view: RequestView, body: Body | 'consumed'): Buffer {
  const kept = view
    .allHeaders()
    .filter(([name]) => !isCredential(name) && !OF_THE_MESSAGE.test(name))
  const headers = kept.flatMap(([name, value]) => asParsed(name, value, body))
  const { method, url } = view
  const stored: StoredRequest = {
    method,
    url: withoutCredentials(url),
    headers,
    body: bytesOf(body, view),
  }
  return encodeValue(stored) as Buffer
}

/** @param bytes as `storedRequest` made them */
export function openStoredRequest(bytes: Buffer): StoredRequest {
  return decodeValue(bytes) as StoredRequest
}

function bytesOf(body: Body | 'consumed', view: RequestView): Buffer {
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
    'Mount idempotency() before the parser on routes with recover: true.',
  )
}

/** A header that describes the body, as it is after a parser: not compressed, and text in UTF-8. */
function asParsed(name: string, value: string, body: Body | 'consumed'): [string, string][] {
  if (typeof body !== 'object' || ('raw' in body && !body.decoded)) return [[name, value]]
  if (/^content-encoding$/i.test(name)) return []
  if (!/^content-type$/i.test(name) || 'raw' in body) return [[name, value]]
  if (typeof body.parsed !== 'string' && !CHARSET.test(value)) return [[name, value]]
  return [[name, `${value.replace(CHARSET, '')}; charset=utf-8`]]
}
