import { isDeepStrictEqual } from 'node:util'
import { PawlError } from '../../errors/index.ts'
import { errorOf, partsOf } from './serialized-error.ts'
import { survey } from './serializability.ts'
import { parseRichJson, richJson } from './rich-json.ts'

/** The first byte of a value that plain JSON cannot tell. JSON never begins with it. */
const RICH = 1

/** How many causes of causes of a failure are kept. */
const MAX_CAUSES = 10

/**
 * What a step returned, as bytes: plain JSON where JSON tells all of it, else JSON with a description
 * beside it (superjson) of every Date, Map, Set, BigInt, undefined, Error, typed array and cycle.
 *
 * Comes back equal (`assert.deepStrictEqual`), but for two things: an object without a prototype comes
 * back with one, and an error of the app's own class as the nearest class that every process knows, with
 * its name, message, stack, cause and properties.
 *
 * @returns null for undefined
 * @throws PawlError `value-unkeepable` that names the path of what would not come back equal
 */
export function encodeValue(value: unknown): Buffer | null {
  if (value === undefined) return null
  const { bad, plain, cyclic } = survey(value)
  if (bad) throw unkeepable(bad)
  if (plain) return Buffer.from(JSON.stringify(value))
  const bytes = Buffer.concat([Buffer.of(RICH), Buffer.from(richJson(value, cyclic))])
  // Cycles through a Map, a Set or an error do not come back in all places.
  if (cyclic && !isDeepStrictEqual(decodeValue(bytes), value)) {
    throw unkeepable('value contains itself by way of a Map, a Set or an Error')
  }
  return bytes
}

/**
 * A failure, as bytes. What cannot be kept of it is left out: it is thrown with whatever a library has
 * hung on it (sockets, functions), and it must be recorded all the same.
 */
export function encodeError(error: Error): Buffer | null {
  return encodeValue(isKeepable(error) ? error : reduced(error, MAX_CAUSES))
}

/** The value again; undefined for null. */
export function decodeValue(bytes: Buffer | null): unknown {
  if (bytes === null) return undefined
  if (bytes[0] !== RICH) return JSON.parse(bytes.toString('utf8'))
  return parseRichJson(bytes.toString('utf8', 1))
}

/**
 * The value as plain JSON, for people and other languages: a Date is its ISO text, a Map its entries, a
 * Set its items, a BigInt its digits; undefined is null.
 */
export function plainJson(bytes: Buffer | null): unknown {
  if (bytes === null) return null
  if (bytes[0] !== RICH) return JSON.parse(bytes.toString('utf8'))
  return JSON.parse(bytes.toString('utf8', 1)).json ?? null
}

function reduced(error: Error, causes: number): Error {
  const { cause, errors, own, ...parts } = partsOf(error)
  const reduce = (value: unknown) =>
    value instanceof Error && causes > 0 ? reduced(value, causes - 1) : value
  const kept = Object.entries(own)
    .map(([name, value]) => [name, reduce(value)] as const)
    .filter(([name, value]) => isKeepable({ [name]: value, beside: undefined }))
  const reason = cause && reduce(cause.value)
  return errorOf({
    ...parts,
    cause: isKeepable(reason) ? cause && { value: reason } : undefined,
    errors: errors?.map(reduce).filter(isKeepable),
    own: Object.fromEntries(kept),
  })
}

function isKeepable(value: unknown): boolean {
  const { bad, cyclic } = survey(value)
  return !bad && !cyclic
}

function unkeepable(what: string): PawlError {
  return new PawlError(
    'value-unkeepable',
    `What a step returned cannot be kept: ${what}; it would not come back equal.`,
    'Return plain data: JSON, Date, Map, Set, BigInt, Error, typed arrays. A schema option can pick what is needed.',
  )
}
