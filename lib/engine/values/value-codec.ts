/** Encodes values and errors as bytes for storage, and decodes them. */

import { isDeepStrictEqual } from 'node:util'
import { PawlError } from '../../errors/index.ts'
import { parseRichJson, stringifyRichJson } from './rich-json.ts'
import { inspectValue } from './serializability.ts'
import { deserializeError, serializeError } from './serialized-error.ts'

/** The first byte of a value that plain JSON cannot represent. JSON text never begins with this byte. */
const RICH = 1

/** How many levels of nested causes of an error are kept. */
const MAX_CAUSES = 10

/**
 * Encodes a value as bytes: plain JSON if that represents the whole value, else superjson, which is JSON
 * plus metadata about every Date, Map, Set, BigInt, undefined, Error, typed array and cycle.
 *
 * The decoded value is equal (`assert.deepStrictEqual`), with two exceptions: an object without a prototype
 * comes back with one, and an error of the app's own class comes back as its nearest built-in or Pawl
 * class, with its name, message, stack, cause and properties.
 *
 * @returns null for undefined
 * @throws PawlError `value-unkeepable` with the path of the part that would not come back equal
 */
export function encodeValue(value: unknown): Buffer | null {
  if (value === undefined) return null
  const { problem, isPlainJson, isCyclic } = inspectValue(value)
  if (problem) throw notSerializable(problem)
  if (isPlainJson) return Buffer.from(JSON.stringify(value))
  const bytes = Buffer.concat([Buffer.of(RICH), Buffer.from(stringifyRichJson(value, isCyclic))])
  // superjson does not restore every cycle through a Map, a Set or an error.
  if (isCyclic && !isDeepStrictEqual(decodeValue(bytes), value)) {
    throw notSerializable('value contains itself through a Map, a Set or an Error')
  }
  return bytes
}

/**
 * Encodes an error as bytes. Leaves out its parts that cannot be stored, such as sockets and functions that
 * a library attached to it, since a failure must be recorded in any case.
 */
export function encodeError(error: Error): Buffer | null {
  return encodeValue(isSerializable(error) ? error : withoutUnserializable(error, MAX_CAUSES))
}

/** Decodes a value that `encodeValue` or `encodeError` has encoded; undefined for null. */
export function decodeValue(bytes: Buffer | null): unknown {
  if (bytes === null) return undefined
  if (bytes[0] !== RICH) return JSON.parse(bytes.toString('utf8'))
  return parseRichJson(bytes.toString('utf8', 1))
}

/**
 * Decodes a value as plain JSON, for people and other languages: a Date as its ISO text, a Map as its
 * entries, a Set as its items, a BigInt as its digits, undefined as null.
 */
export function toPlainJson(bytes: Buffer | null): unknown {
  if (bytes === null) return null
  if (bytes[0] !== RICH) return JSON.parse(bytes.toString('utf8'))
  return JSON.parse(bytes.toString('utf8', 1)).json ?? null
}

/** Returns a copy of the error without the parts that cannot be stored. */
function withoutUnserializable(error: Error, causes: number): Error {
  const { cause, errors, own, ...parts } = serializeError(error)
  const reduce = (value: unknown) =>
    value instanceof Error && causes > 0 ? withoutUnserializable(value, causes - 1) : value
  const kept = Object.entries(own)
    .map(([name, value]) => [name, reduce(value)] as const)
    .filter(([name, value]) => isSerializable({ [name]: value, beside: undefined }))
  const reason = cause && reduce(cause.value)
  return deserializeError({
    ...parts,
    cause: isSerializable(reason) ? cause && { value: reason } : undefined,
    errors: errors?.map(reduce).filter(isSerializable),
    own: Object.fromEntries(kept),
  })
}

function isSerializable(value: unknown): boolean {
  const { problem, isCyclic } = inspectValue(value)
  return !problem && !isCyclic
}

function notSerializable(what: string): PawlError {
  return new PawlError(
    'value-unkeepable',
    `The value that a step returned cannot be stored: ${what}, which would not come back equal.`,
    'Return plain data: JSON, Date, Map, Set, BigInt, Error, typed arrays. A schema option can select the needed parts.',
  )
}
