/** Computes the fingerprint of a request: SHA-256 of what makes two requests the same request. */

import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'

/** Changes when the rules below change, so that old and new fingerprints never compare equal. */
const VERSION = 1

const BOUNDARY = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i

/** Thrown for a value whose canonical JSON would lose content, such as a Map. */
export class NotJsonError extends Error {}

/** The body of a request, in the form that is still available. */
export type RequestBody =
  /** The bytes as they arrived. `decoded`: a parser has already undone their Content-Encoding. */
  | { raw: readonly Uint8Array[]; decoded?: true }
  /** The value that a body parser made of the bytes. */
  | { parsed: unknown }

/** The parts of a request that enter its fingerprint. */
export interface FingerprintInput {
  method: string
  /** Path and query as the client sent them, before a router removed its mount path. */
  url: string
  contentType: string | undefined
  body: RequestBody
}

/**
 * Computes a version byte, followed by the SHA-256 over method, URL, content type and body.
 *
 * @param credentials the caller's credentials, if the app sets no scope: another caller with the same key
 * then has another fingerprint, and never gets a replay
 * @throws if a parsed body has no canonical JSON (RFC 8785): NaN, a lone surrogate, a cycle
 * @throws NotJson if a parser made a value that is not JSON: a Map, URLSearchParams, a bigint
 */
export function fingerprint(request: FingerprintInput, credentials: string | undefined): Buffer {
  const { method, url, contentType, body } = request
  const boundary = multipartBoundary(contentType)
  const type = boundary ? contentType?.replace(BOUNDARY, ';boundary') : contentType
  const head =
    field('request') + field(method) + field(url) + field(credentials ?? '') + field(type ?? '')
  return digest(head, body, boundary)
}

/** Computes the fingerprint of a value that the `fingerprint` option returned in place of the request. */
export function fingerprintValue(value: unknown, credentials: string | undefined): Buffer {
  const body = value instanceof Uint8Array ? { raw: [value] } : { parsed: value }
  return digest(field('custom') + field(credentials ?? ''), body, null)
}

function digest(head: string, body: RequestBody, boundary: string | null): Buffer {
  const [kind, content] = contentOf(body, boundary)
  const prefix = head + field(kind)
  const whole =
    typeof content === 'string'
      ? prefix + content
      : Buffer.concat([Buffer.from(prefix), ...content])
  return Buffer.concat([Buffer.of(VERSION), hash('sha256', whole, 'buffer')])
}

// The length comes before each part, so that two different lists of parts never give the same bytes.
function field(text: string): string {
  return `${Buffer.byteLength(text)}:${text}`
}

function contentOf(
  body: RequestBody,
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
    // UTF-8 encodes every lone surrogate as the same replacement character, so two texts would be equal.
    throw new Error('Lone surrogate is not allowed')
  }
  checkJson(parsed)
  return ['json', canonicalize(parsed) as string]
}

/**
 * Throws for values that JSON does not have. The canonical JSON of every Map, Set or promise is `{}`, so
 * two different ones would count as the same request.
 */
function checkJson(value: unknown): void {
  const type = typeof value
  if (value === null || type === 'string' || type === 'number' || type === 'boolean') return
  if (type !== 'object') throw new NotJsonError(`a ${type} is not JSON`)
  const object = value as { toJSON?: () => unknown }
  if (typeof object.toJSON === 'function') {
    checkJson(object.toJSON())
    return
  }
  const members = Object.values(object)
  if (members.length === 0 && !isContainer(object)) {
    throw new NotJsonError(
      `JSON cannot hold the contents of a ${object.constructor?.name ?? 'value'}`,
    )
  }
  for (const member of members) if (member !== undefined) checkJson(member)
}

/** Whether it is an array or a plain object, the containers that JSON has. */
function isContainer(object: object): boolean {
  if (Array.isArray(object)) return true
  const prototype = Object.getPrototypeOf(object)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/**
 * Splits a multipart body at its boundary, and omits the boundary: a client that builds the form again
 * for a retry chooses a new random boundary. Everything between the boundaries counts.
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
