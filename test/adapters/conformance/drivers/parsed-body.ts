/** What a body is, by its type: a value, text, or bytes. */
export function parsedBody(type: string, chunks: Uint8Array[]): unknown {
  const bytes = Buffer.concat(chunks)
  if (type.startsWith('application/json')) return JSON.parse(bytes.toString())
  return type.startsWith('text/') ? bytes.toString() : bytes
}
