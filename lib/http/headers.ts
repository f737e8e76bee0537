/** A header and its value, or its values where it appears on several lines, or on none. */
export type Header = [name: string, value: string | string[]]

/** Decides, by lower-case name, which headers are stored. */
export type HeaderFilter = (name: string) => boolean

// Connection-specific headers (RFC 9110, section 7.6.1) and what belongs to this one message.
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

/** The headers that a stored response keeps: end-to-end, and no cookies unless the app says so. */
export function headerFilter(
  option: readonly string[] | ((name: string) => unknown) | undefined,
): HeaderFilter {
  const names = Array.isArray(option) ? new Set(option.map((name) => name.toLowerCase())) : null
  const choose = names
    ? (name: string) => names.has(name)
    : ((option as HeaderFilter | undefined) ?? ((name: string) => name !== 'set-cookie'))
  return (name) => !NEVER_STORED.has(name) && Boolean(choose(name))
}

/** Bytes for the store. */
export function encodeHeaders(headers: readonly Header[]): Buffer {
  return Buffer.from(JSON.stringify(headers))
}

export function decodeHeaders(bytes: Buffer): Header[] {
  return JSON.parse(bytes.toString('utf8'))
}

/** Of a Content-Type: whether its body flows at once, for as long as it lasts. */
export function isEventStream(contentType: unknown): boolean {
  return /^text\/event-stream\b/i.test(String(contentType ?? ''))
}
