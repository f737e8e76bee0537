import { createHash, type Hash } from 'node:crypto'
import canonicalize from 'canonicalize'

/** Changes when the rules below change, so that old and new fingerprints never compare equal. */
const VERSION = 1

/** The body of a request, as far as it is known. */
export type Body =
  /** The bytes as they arrived. */
  | { raw: readonly Uint8Array[] }
  /** What a body parser made of them. */
  | { parsed: unknown }

/** What makes two requests the same request. */
export interface Fingerprinted {
  method: string
  /** Path and query as the client sent them, before any router took a part away. */
  url: string
  contentType: string | undefined
  body: Body
}

/**
 * A version byte, then SHA-256 over method, URL, content type and body.
 *
 * @param credentials who presents the key, where the app names no scope: somebody else's key then is
 * another request and never a replay
 * @throws where a parsed body has no canonical JSON (RFC 8785): NaN, a lone surrogate, a cycle
 */
export function fingerprint(request: Fingerprinted, credentials: string | undefined): Buffer {
  const hash = createHash('sha256')
  field(hash, 'request')
  field(hash, request.method)
  field(hash, request.url)
  field(hash, credentials ?? '')
  const boundary = multipartBoundary(request.contentType)
  field(hash, boundary ? 'multipart' : (request.contentType ?? ''))
  hashBody(hash, request.body, boundary)
  return finish(hash)
}

/** The same for a value that the app gave in place of the request. */
export function customFingerprint(value: unknown, credentials: string | undefined): Buffer {
  const hash = createHash('sha256')
  field(hash, 'custom')
  field(hash, credentials ?? '')
  hashBody(hash, value instanceof Uint8Array ? { raw: [value] } : { parsed: value }, null)
  return finish(hash)
}

function finish(hash: Hash): Buffer {
  return Buffer.concat([Buffer.of(VERSION), hash.digest()])
}

// Every part behind its length, so that no two lists of parts give the same bytes.
function field(hash: Hash, text: string): void {
  hash.update(`${Buffer.byteLength(text)}:`).update(text)
}

function hashBody(hash: Hash, body: Body, boundary: string | null): void {
  if ('raw' in body) {
    field(hash, 'raw')
    if (boundary) hashMultipart(hash, Buffer.concat(body.raw), boundary)
    else for (const chunk of body.raw) hash.update(chunk)
    return
  }
  const { parsed } = body
  if (parsed instanceof Uint8Array) {
    field(hash, 'raw')
    hash.update(parsed)
  } else if (typeof parsed === 'string') {
    field(hash, 'text')
    hash.update(parsed)
  } else {
    field(hash, 'json')
    hash.update(canonicalize(parsed) ?? '')
  }
}

/**
 * A client that builds its form anew for a retry draws a new boundary. It is punctuation, so it does
 * not count; everything between does.
 */
function hashMultipart(hash: Hash, body: Buffer, boundary: string): void {
  const delimiter = Buffer.from(`--${boundary}`, 'latin1')
  let start = 0
  for (;;) {
    const at = body.indexOf(delimiter, start)
    const part = body.subarray(start, at < 0 ? undefined : at)
    hash.update(`${part.length}:`).update(part)
    if (at < 0) return
    start = at + delimiter.length
  }
}

function multipartBoundary(contentType: string | undefined): string | null {
  if (!contentType || !/^multipart\//i.test(contentType)) return null
  const match = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(contentType)
  return match?.[1] ?? match?.[2] ?? null
}
