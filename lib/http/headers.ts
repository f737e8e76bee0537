/** Decides which response headers are stored, and encodes them for the store. */

/** A header with its value. Several values are several header lines; an empty list is no line. */
export type Header = [name: string, value: string | string[]]

/** Whether the header of this lower-case name is stored. */
export type HeaderFilter = (name: string) => boolean

// Connection-specific headers (RFC 9110, section 7.6.1) and headers that are true of one message only.
const NEVER_STORED = new Set([
  'connection',
  'date',
  'keep-alive',
  'proxy-authenticate',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/**
 * Turns the `storedHeaders` option into a filter. Default: every end-to-end header but Set-Cookie.
 * Hop-by-hop headers and Date never pass.
 */
export function createHeaderFilter(
  option: readonly string[] | ((name: string) => unknown) | undefined,
): HeaderFilter {
  const names = Array.isArray(option) ? new Set(option.map((name) => name.toLowerCase())) : null
  const choose = names
    ? (name: string) => names.has(name)
    : ((option as HeaderFilter | undefined) ?? ((name: string) => name !== 'set-cookie'))
  return (name) => !NEVER_STORED.has(name) && Boolean(choose(name))
}

/** Encodes headers to the bytes that the store keeps. */
export function encodeHeaders(headers: readonly Header[]): Buffer {
  return Buffer.from(JSON.stringify(headers))
}

export function decodeHeaders(bytes: Buffer): Header[] {
  return JSON.parse(bytes.toString('utf8'))
}

/** Whether this Content-Type is an event stream, which is sent at once and never buffered. */
export function isEventStream(contentType: unknown): boolean {
  return /^text\/event-stream\b/i.test(String(contentType ?? ''))
}
