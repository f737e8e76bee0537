import SuperJSON from 'superjson'
import { type ErrorParts, errorOf, partsOf } from './serialized-error.ts'
import { BINARY } from './serializability.ts'

const superjson = new SuperJSON()

/** JSON, and beside it what JSON cannot tell: `{ json, meta }` as superjson has it. */
export function richJson(value: unknown, cyclic: boolean): string {
  const { json, meta } = superjson.serialize(value)
  // What is the same object in two places comes back as two that are equal, as from plain JSON.
  // superjson would restore it, and lose the order of Sets and the contents of errors over it.
  if (meta && !cyclic) delete meta.referentialEqualities
  return JSON.stringify({ json, meta })
}

export function parseRichJson(text: string): unknown {
  return superjson.deserialize(JSON.parse(text))
}

type Binary = [type: string, base64: string]

// superjson's own typed arrays are lists of numbers, which loses NaN and knows no BigInt64Array.
superjson.registerCustom<ArrayBuffer | ArrayBufferView, Binary>(
  {
    isApplicable: (value): value is ArrayBuffer | ArrayBufferView =>
      ArrayBuffer.isView(value) || value instanceof ArrayBuffer,
    serialize: (value) => {
      if (Buffer.isBuffer(value)) return ['Buffer', value.toString('base64')]
      const bytes =
        value instanceof ArrayBuffer
          ? Buffer.from(value)
          : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      return [Object.prototype.toString.call(value).slice(8, -1), bytes.toString('base64')]
    },
    deserialize: ([type, base64]) => {
      const bytes = Buffer.from(base64, 'base64')
      if (type === 'Buffer') return bytes
      // A copy of its own: small Buffers are slices of a pool, at any offset.
      const memory = bytes.buffer.slice(
        bytes.byteOffset,
        bytes.byteOffset + bytes.length,
      ) as ArrayBuffer
      const View = BINARY[type]
      return View ? (new View(memory) as ArrayBufferView) : memory
    },
  },
  'binary',
)

superjson.registerCustom<Error, never>(
  {
    isApplicable: (value): value is Error => value instanceof Error,
    serialize: (error) => defined(partsOf(error)) as never,
    deserialize: (parts) => errorOf(parts as ErrorParts),
  },
  'error',
)

function defined(parts: ErrorParts): object {
  return Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined))
}
