/** Reads a stream into memory up to a size limit, and passes the rest through unread. */

type Chunk = string | Uint8Array

/** A stream of unknown length, after it was read up to the size limit. */
export type BufferedStream =
  | { kind: 'complete'; body: Buffer }
  /**
   * The stream is larger than the limit: `body` yields the chunks that were read, then the rest.
   * `body.return()` cancels the source.
   */
  | { kind: 'streaming'; body: AsyncIterableIterator<Buffer> }

/**
 * Reads a stream until it ends or exceeds `maxBytes`.
 * @throws what the stream throws
 */
export async function bufferStream(
  source: AsyncIterable<Chunk>,
  maxBytes: number,
): Promise<BufferedStream> {
  const iterator = source[Symbol.asyncIterator]()
  const chunks: Buffer[] = []
  let size = 0
  for (;;) {
    const { done, value } = await iterator.next()
    if (done) return { kind: 'complete', body: Buffer.concat(chunks) }
    const bytes = toBuffer(value)
    chunks.push(bytes)
    size += bytes.length
    if (size > maxBytes) return { kind: 'streaming', body: chunksThenRest(chunks, iterator) }
  }
}

/** Not a generator: `return()` on a generator that has not started would not reach the source. */
function chunksThenRest(
  buffered: Buffer[],
  rest: AsyncIterator<Chunk>,
): AsyncIterableIterator<Buffer> {
  return {
    async next() {
      const first = buffered.shift()
      if (first) return { done: false, value: first }
      const { done, value } = await rest.next()
      return done ? { done, value: undefined } : { done: false, value: toBuffer(value) }
    },
    async return() {
      buffered.length = 0
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
