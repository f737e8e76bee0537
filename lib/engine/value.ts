import SuperJSON from 'superjson'
import { PawlError, StepInterruptedError, TerminalError } from '../errors.ts'

/** The first byte of a value that plain JSON cannot tell. JSON never begins with it. */
const RICH = 1

/**
 * What a step returned, as bytes: plain JSON where JSON tells all of it, else JSON with a description
 * beside it (superjson) of every Date, Map, Set, BigInt, undefined, Error, typed array and cycle.
 *
 * @returns null for undefined
 * @throws PawlError `value-unkeepable` that names the path of what would not come back equal
 */
export function encodeValue(value: unknown): Buffer | null {
  if (value === undefined) return null
  const survey: Survey = { plain: true, path: [], above: new Set() }
  const bad = inspect(value, survey)
  if (bad) {
    const at = ['value', ...survey.path].join('')
    throw new PawlError(
      'value-unkeepable',
      `What a step returned cannot be kept: ${at} is ${bad}, which would not come back equal.`,
      'Return plain data: JSON, Date, Map, Set, BigInt, Error, typed arrays. A schema option can pick what is needed.',
    )
  }
  if (survey.plain) return Buffer.from(JSON.stringify(value))
  return Buffer.concat([Buffer.of(RICH), Buffer.from(JSON.stringify(rich.serialize(value)))])
}

/** The value again; undefined for null. */
export function decodeValue(bytes: Buffer | null): unknown {
  if (bytes === null) return undefined
  if (bytes[0] !== RICH) return JSON.parse(bytes.toString('utf8'))
  return rich.deserialize(JSON.parse(bytes.toString('utf8', 1)))
}

interface Survey {
  /** Whether JSON tells all of it. */
  plain: boolean
  /** Where the inspection is, or where it found something bad. */
  path: string[]
  /** The objects around it. */
  above: Set<object>
}

/** What is wrong with a value; undefined if it can be kept. */
function inspect(value: unknown, survey: Survey): string | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return undefined
    case 'number':
      if (!Number.isFinite(value) || Object.is(value, -0)) survey.plain = false
      return undefined
    case 'undefined':
    case 'bigint':
      survey.plain = false
      return undefined
    case 'object':
      return value === null ? undefined : inspectObject(value, survey)
    default:
      return `a ${typeof value}`
  }
}

function inspectObject(value: object, survey: Survey): string | undefined {
  if (survey.above.has(value)) {
    survey.plain = false
    return undefined
  }
  const members = membersOf(value)
  if (typeof members === 'string') return members
  if (!Array.isArray(value) && !isPlain(value)) survey.plain = false
  survey.above.add(value)
  for (const [step, member] of members) {
    survey.path.push(step)
    const bad = inspect(member, survey)
    if (bad) return bad
    survey.path.pop()
  }
  survey.above.delete(value)
  return undefined
}

/** What a value is made of, with the way there; or what is wrong with it. */
function membersOf(value: object): string | (readonly [string, unknown])[] {
  if (Array.isArray(value)) {
    // Holes and further properties would be lost.
    if (Object.keys(value).length !== value.length) return 'an array with holes or properties'
    return value.map((item, i) => [`[${i}]`, item])
  }
  if (isPlain(value)) {
    if (Object.getOwnPropertySymbols(value).length > 0) return 'an object with symbols as keys'
    return Object.entries(value).map(([name, member]) => [propertyPath(name), member])
  }
  if (value instanceof Map) {
    return [...value].flatMap(([key, item], i) => [
      [`.keys()[${i}]`, key] as const,
      [`.get(${typeof key === 'string' ? JSON.stringify(key) : String(key)})`, item] as const,
    ])
  }
  if (value instanceof Set) return [...value].map((item, i) => [`.values()[${i}]`, item])
  if (value instanceof Error) {
    return Object.entries(errorParts(value)).map(([name, part]) => [propertyPath(name), part])
  }
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid Date' : []
  if (value instanceof RegExp || value instanceof URL || isBinary(value)) return []
  if (typeof (value as PromiseLike<unknown>).then === 'function') return 'a promise (await it)'
  const name = value.constructor?.name
  return name ? `an instance of ${name}` : 'an instance of a class'
}

function propertyPath(name: string): string {
  return /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

function isBinary(value: unknown): value is ArrayBuffer | ArrayBufferView {
  return ArrayBuffer.isView(value) || value instanceof ArrayBuffer
}

const rich = new SuperJSON()

// superjson's own typed arrays are lists of numbers, which loses NaN and knows no BigInt64Array.
const BINARY: Record<string, new (memory: ArrayBuffer) => ArrayBufferView> = Object.fromEntries(
  [
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
    DataView,
  ].map((type) => [type.name, type]),
)

rich.registerCustom<ArrayBuffer | ArrayBufferView, [type: string, base64: string]>(
  {
    isApplicable: isBinary,
    serialize: (value) => {
      const bytes =
        value instanceof ArrayBuffer
          ? Buffer.from(value)
          : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      return [Object.prototype.toString.call(value).slice(8, -1), bytes.toString('base64')].concat(
        Buffer.isBuffer(value) ? ['Buffer'] : [],
      ) as [string, string]
    },
    deserialize: ([type, base64, buffer]: string[] & [string, string]) => {
      const bytes = Buffer.from(base64, 'base64')
      if (buffer) return bytes
      // A copy of its own: small Buffers are slices of a pool, at any offset.
      const memory = bytes.buffer.slice(
        bytes.byteOffset,
        bytes.byteOffset + bytes.length,
      ) as ArrayBuffer
      const View = BINARY[type]
      return View ? new View(memory) : memory
    },
  },
  'binary',
)

const ERRORS = Object.fromEntries(
  [EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((type) => [
    type.name,
    type,
  ]),
)

function errorParts(error: Error): Record<string, unknown> {
  const { name, message, stack } = error
  return {
    ...error,
    name,
    message,
    ...(stack !== undefined && { stack }),
    ...('cause' in error && { cause: error.cause }),
    ...(error instanceof AggregateError && { errors: error.errors }),
  }
}

rich.registerCustom<Error, Record<string, never>>(
  {
    isApplicable: (value): value is Error => value instanceof Error,
    serialize: (error) => errorParts(error) as Record<string, never>,
    deserialize: (parts) => {
      const { name, message, stack, cause, errors, ...more } = parts as Record<string, unknown>
      const error = newError(String(name), String(message), errors, more)
      const hidden = { stack, ...('cause' in parts && { cause }) }
      for (const [key, value] of Object.entries(hidden)) {
        Object.defineProperty(error, key, { value, configurable: true, writable: true })
      }
      if (error.name !== name) {
        Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true })
      }
      return Object.assign(error, more)
    },
  },
  'error',
)

/** An error of the class that its name names, as far as that class is known here. */
function newError(
  name: string,
  message: string,
  errors: unknown,
  more: Record<string, unknown>,
): Error {
  if (name === 'TerminalError') return new TerminalError(message)
  if (name === 'StepInterruptedError') return new StepInterruptedError(String(more.step))
  if (name === 'AggregateError') return new AggregateError(errors as unknown[], message)
  return new (ERRORS[name] ?? Error)(message)
}
