/** Converts the bytes that database drivers return to Buffers. */

/** The same bytes as a Buffer, not copied. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** A nullable column of type bytea as a Buffer. */
export function toBufferOrNull(value: unknown): Buffer | null {
  return value === null ? null : toBuffer(value as Uint8Array)
}
