/** Checks whether a value comes back equal after it was stored as JSON, and names what would not. */

import { type SerializedError, serializeError } from './serialized-error.ts'

/** The deepest nesting of a value: far beyond any use, and far below what overflows the stack. */
const MAX_DEPTH = 1000

/** Keys that superjson refuses, since they could reach a prototype. Plain JSON allows them. */
const RESERVED = new Set(['__proto__', 'constructor', 'prototype'])

/** The binary classes that can be stored, by name; each comes back as an instance of the same class. */
export const BINARY_TYPES: Record<string, new (memory: ArrayBuffer) => object> = Object.fromEntries(
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

/** Prototypes of serializable objects that have no members to inspect. */
const ATOMIC_PROTOTYPES = new Set<object>(
  [Date, RegExp, URL, ArrayBuffer, Buffer, ...Object.values(BINARY_TYPES)].map(
    (type) => type.prototype,
  ),
)

/** The result of inspecting a value. */
export interface Inspection {
  /** The path and kind of the first part that would not come back equal; undefined if there is none. */
  problem: string | undefined
  /** Whether plain JSON represents the whole value. */
  isPlainJson: boolean
  /** Whether the value contains itself. */
  isCyclic: boolean
}

/** Checks whether a value comes back equal after it was stored, and whether plain JSON is enough for it. */
export function inspectValue(value: unknown): Inspection {
  return new ValueInspector().inspect(value)
}

class ValueInspector {
  #isPlainJson = true
  #isCyclic = false
  /** The path of the first reserved key. */
  #reserved: string | undefined
  /** The path of the part that is being inspected. */
  readonly #path: string[] = []
  /** The objects that contain that part. */
  readonly #ancestors = new Set<object>()

  inspect(value: unknown): Inspection {
    const wrong = this.#inspect(value)
    const problem = wrong && `${this.#currentPath()} is ${wrong}`
    const reserved =
      !this.#isPlainJson &&
      this.#reserved &&
      `${this.#reserved} is a key that only plain JSON may have`
    return {
      problem: problem || reserved || undefined,
      isPlainJson: this.#isPlainJson,
      isCyclic: this.#isCyclic,
    }
  }

  #currentPath(): string {
    return ['value', ...this.#path].join('')
  }

  #inspect(value: unknown): string | undefined {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return undefined
      case 'number':
        if (!Number.isFinite(value) || Object.is(value, -0)) this.#isPlainJson = false
        return undefined
      case 'undefined':
      case 'bigint':
        this.#isPlainJson = false
        return undefined
      case 'object':
        return value === null ? undefined : this.#inspectObject(value)
      default:
        return `a ${typeof value}`
    }
  }

  #inspectObject(value: object): string | undefined {
    if (this.#ancestors.has(value)) {
      this.#isPlainJson = false
      this.#isCyclic = true
      return undefined
    }
    const members = membersOf(value)
    if (typeof members === 'string') return members
    if (this.#ancestors.size >= MAX_DEPTH) {
      this.#path.splice(5) // The full path would be too long to read.
      return `nested more than ${MAX_DEPTH} levels deep`
    }
    if (!Array.isArray(value) && !isPlainObject(value)) this.#isPlainJson = false
    this.#ancestors.add(value)
    for (const [step, member] of members) {
      this.#path.push(formatSegment(step))
      if (typeof step === 'string' && RESERVED.has(step)) this.#reserved ??= this.#currentPath()
      const problem = this.#inspect(member)
      if (problem) return problem
      this.#path.pop()
    }
    this.#ancestors.delete(value)
    return undefined
  }
}

/** One segment of the path to a member: a property name, an index, or any other text. */
type PathSegment = string | number | { text: string }

/** Returns the members of an object with their path segments, or why the object cannot be stored. */
function membersOf(value: object): string | (readonly [PathSegment, unknown])[] {
  const prototype = Object.getPrototypeOf(value)
  // Also arrays of a subclass, such as a driver's rows: they come back as plain arrays.
  if (Array.isArray(value)) return membersOfArray(value)
  if (isPlainObject(value)) {
    if (Object.getOwnPropertySymbols(value).length > 0) return 'an object with symbols as keys'
    return Object.entries(value)
  }
  if (value instanceof Error) return membersOfError(serializeError(value))
  if (value instanceof Date && Number.isNaN(value.getTime())) return 'an invalid Date'
  if (prototype === Map.prototype || prototype === Set.prototype) {
    if (Object.keys(value).length > 0) return `a ${classNameOf(value)} with properties`
    return value instanceof Map ? membersOfMap(value) : membersOfSet(value as Set<unknown>)
  }
  if (ATOMIC_PROTOTYPES.has(prototype)) return []
  if (typeof (value as PromiseLike<unknown>).then === 'function') return 'a promise (await it)'
  const name = classNameOf(value)
  return name ? `an instance of ${name}` : 'an instance of a class'
}

function membersOfArray(items: unknown[]): string | (readonly [PathSegment, unknown])[] {
  // Holes and additional properties would be lost. Object.keys lists the indexes first, in ascending order.
  const keys = Object.keys(items)
  const { length } = items
  const dense = keys.length === length && (length === 0 || keys[length - 1] === String(length - 1))
  return dense ? [...items.entries()] : 'an array with holes or properties'
}

function membersOfMap(map: Map<unknown, unknown>): (readonly [PathSegment, unknown])[] {
  return [...map].flatMap(([key, item], i) => [
    [{ text: `.keys()[${i}]` }, key] as const,
    [
      {
        text:
          typeof key === 'object' ? `.values()[${i}]` : `.get(${JSON.stringify(displayKey(key))})`,
      },
      item,
    ] as const,
  ])
}

function membersOfSet(set: Set<unknown>): (readonly [PathSegment, unknown])[] {
  return [...set].map((item, i) => [{ text: `.values()[${i}]` }, item])
}

function membersOfError({
  cause,
  errors,
  own,
}: SerializedError): (readonly [PathSegment, unknown])[] {
  return Object.entries({ ...own, ...(cause && { cause: cause.value }), ...(errors && { errors }) })
}

function displayKey(key: unknown): unknown {
  return typeof key === 'string' || typeof key === 'number' ? key : String(key)
}

function formatSegment(step: PathSegment): string {
  if (typeof step === 'number') return `[${step}]`
  if (typeof step === 'object') return step.text
  return /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`
}

function classNameOf(value: object): string | undefined {
  return value.constructor?.name
}

function isPlainObject(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
