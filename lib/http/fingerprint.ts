import { hash } from 'node:crypto'
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
  const { method, url, contentType, body } = request
  const boundary = multipartBoundary(contentType)
  const type = boundary ? 'multipart' : (contentType ?? '')
  const head =
    field('request') + field(method) + field(url) + field(credentials ?? '') + field(type)
  return digest(head, body, boundary)
}

/** The same for a value that the app gave in place of the request. */
export function customFingerprint(value: unknown, credentials: string | undefined): Buffer {
  const body = value instanceof Uint8Array ? { raw: [value] } : { parsed: value }
  return digest(field('custom') + field(credentials ?? ''), body, null)
}

function digest(head: string, body: Body, boundary: string | null): Buffer {
  const [kind, content] = contentOf(body, boundary)
  const prefix = head + field(kind)
  const whole =
    typeof content === 'string'
      ? prefix + content
      : Buffer.concat([Buffer.from(prefix), ...content])
  return Buffer.concat([Buffer.of(VERSION), hash('sha256', whole, 'buffer')])
}

// Every part behind its length, so that no two lists of parts give the same bytes.
function field(text: string): string {
  return `${Buffer.byteLength(text)}:${text}`
}

function contentOf(
  body: Body,
  boundary: string | null,
): [kind: string, content: string | readonly Uint8Array[]] {
  if ('raw' in body) {
    return ['raw', boundary ? formParts(Buffer.concat(body.raw), boundary) : body.raw]
  }
  const { parsed } = body
  if (parsed instanceof Uint8Array) return ['raw', [parsed]]
  if (typeof parsed === 'string') return ['text', parsed]
  return ['json', canonicalize(parsed) ?? '']
}

/**
 * A client that builds its form anew for a retry draws a new boundary. It is punctuation, so it does
 * not count; everything between does.
 */
function formParts(body: Buffer, boundary: string): Uint8Array[] {
  const delimiter = Buffer.from(`--${boundary}`, 'latin1')
  const parts: Uint8Array[] = []
  let start = 0
  for (;;) {
    const at = body.indexOf(delimiter, start)
    const part = body.subarray(start, at < 0 ? undefined : at)
    parts.push(Buffer.from(`${part.length}:`), part)
    if (at < 0) return parts
    start = at + delimiter.length
  }
}

function multipartBoundary(contentType: string | undefined): string | null {
  if (!contentType || !/^multipart\//i.test(contentType)) return null
  const match = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(contentType)
  return match?.[1] ?? match?.[2] ?? null
}
