type Chunk = string | Uint8Array

/** A body of unknown length, read as far as it may be held. */
export type HeldStream =
  | { kind: 'whole'; body: Buffer }
  /** Larger than that: what was read comes again, and then the rest. Give up by `return()`. */
  | { kind: 'flowing'; body: AsyncIterableIterator<Buffer> }

/**
 * Reads a stream until it ends, or is larger than what may be held.
 * @throws what the stream throws
 */
export async function holdStream(
  source: AsyncIterable<Chunk>,
  maxBytes: number,
): Promise<HeldStream> {
  const iterator = source[Symbol.asyncIterator]()
  const chunks: Buffer[] = []
  let size = 0
  for (;;) {
    const { done, value } = await iterator.next()
    if (done) return { kind: 'whole', body: Buffer.concat(chunks) }
    const bytes = toBuffer(value)
    chunks.push(bytes)
    size += bytes.length
    if (size > maxBytes) return { kind: 'flowing', body: resumed(chunks, iterator) }
  }
}

/** Not a generator: one that has not begun cannot be told to let go of its source. */
function resumed(held: Buffer[], rest: AsyncIterator<Chunk>): AsyncIterableIterator<Buffer> {
  return {
    async next() {
      const first = held.shift()
      if (first) return { done: false, value: first }
      const { done, value } = await rest.next()
      return done ? { done, value: undefined } : { done: false, value: toBuffer(value) }
    },
    async return() {
      held.length = 0
      await rest.return?.()
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

function toBuffer(chunk: Chunk): Buffer {
  if (typeof chunk === 'string') return Buffer.from(chunk)
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
}
