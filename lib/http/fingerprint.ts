import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'

/** Changes when the rules below change, so that old and new fingerprints never compare equal. */
const VERSION = 1

const BOUNDARY = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i

/** A value of the app's making whose canonical JSON would leave out what it holds. */
export class NotJson extends Error {}

/** The body of a request, as far as it is known. */
export type Body =
  /** The bytes as they arrived; `decoded`: as a parser left them, without their Content-Encoding. */
  | { raw: readonly Uint8Array[]; decoded?: true }
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
 * @throws NotJson where a parser made something else: a Map, URLSearchParams, a bigint
 */
export function fingerprint(request: Fingerprinted, credentials: string | undefined): Buffer {
  const { method, url, contentType, body } = request
  const boundary = multipartBoundary(contentType)
  const type = boundary ? contentType?.replace(BOUNDARY, ';boundary') : contentType
  const head =
    field('request') + field(method) + field(url) + field(credentials ?? '') + field(type ?? '')
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
    if (boundary) return ['form', formParts(Buffer.concat(body.raw), boundary)]
    return ['raw', body.raw]
  }
  const { parsed } = body
  if (parsed instanceof Uint8Array) return ['raw', [parsed]]
  if (typeof parsed === 'string') {
    if (parsed.isWellFormed()) return ['text', parsed]
    // In UTF-8 all lone surrogates are the same replacement character.
    throw new Error('Lone surrogate is not allowed')
  }
  checkJson(parsed)
  return ['json', canonicalize(parsed) as string]
}

/**
 * Canonical JSON of a Map, a Set or a promise is `{}`, whatever it holds: two different ones would be
 * the same request.
 */
function checkJson(value: unknown): void {
  const type = typeof value
  if (value === null || type === 'string' || type === 'number' || type === 'boolean') return
  if (type !== 'object') throw new NotJson(`a ${type} is no JSON`)
  const object = value as { toJSON?: () => unknown }
  if (typeof object.toJSON === 'function') {
    checkJson(object.toJSON())
    return
  }
  const members = Object.values(object)
  if (members.length === 0 && !isContainer(object)) {
    throw new NotJson(`what a ${object.constructor?.name ?? 'value'} holds is no JSON`)
  }
  for (const member of members) if (member !== undefined) checkJson(member)
}

/** Of JSON's own: an array, or an object of no class. */
function isContainer(object: object): boolean {
  if (Array.isArray(object)) return true
  const prototype = Object.getPrototypeOf(object)
  return prototype === null || Object.getPrototypeOf(prototype) === null
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
  const match = BOUNDARY.exec(contentType)
  return match?.[1] ?? match?.[2] ?? null
}
