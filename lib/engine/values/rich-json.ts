/** Writes and parses JSON with metadata (superjson) for values that plain JSON cannot represent. */

import SuperJSON from 'superjson'
import { BINARY_TYPES } from './serializability.ts'
import { deserializeError, type SerializedError, serializeError } from './serialized-error.ts'

const superjson = new SuperJSON()

/** Serializes a value as superjson's `{ json, meta }`. @param cyclic whether the value contains itself */
export function stringifyRichJson(value: unknown, cyclic: boolean): string {
  const { json, meta } = superjson.serialize(value)
  // An object that occurs in two places comes back as two equal objects, as from plain JSON. superjson
  // would restore the identity, but then loses the order of Sets and the contents of errors.
  if (meta && !cyclic) delete meta.referentialEqualities
  return JSON.stringify({ json, meta })
}

/** Restores a value from the text of `stringifyRichJson`. */
export function parseRichJson(text: string): unknown {
  return superjson.deserialize(JSON.parse(text))
}

type Binary = [type: string, base64: string]

// superjson itself writes typed arrays as lists of numbers, which loses NaN and excludes BigInt64Array.
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
      // Copied, because small Buffers are slices of a shared pool at any offset, and views need alignment.
      const memory = bytes.buffer.slice(
        bytes.byteOffset,
        bytes.byteOffset + bytes.length,
      ) as ArrayBuffer
      const View = BINARY_TYPES[type]
      return View ? (new View(memory) as ArrayBufferView) : memory
    },
  },
  'binary',
)

superjson.registerCustom<Error, never>(
  {
    isApplicable: (value): value is Error => value instanceof Error,
    serialize: (error) => defined(serializeError(error)) as never,
    deserialize: (parts) => deserializeError(parts as SerializedError),
  },
  'error',
)

function defined(parts: SerializedError): object {
  return Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined))
}
