import { type ErrorParts, partsOf } from './serialized-error.ts'

/** How deeply a value may be nested: far beyond any use, and far below what fits on the stack. */
const MAX_DEPTH = 1000

/** What superjson refuses as keys, since they could reach a prototype. JSON alone has no such worry. */
const RESERVED = new Set(['__proto__', 'constructor', 'prototype'])

/** The classes of bytes that are kept. Each comes back as what it was. */
export const BINARY: Record<string, new (memory: ArrayBuffer) => object> = Object.fromEntries(
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

const ATOMS = new Set<object>(
  [Date, RegExp, URL, ArrayBuffer, Buffer, ...Object.values(BINARY)].map((type) => type.prototype),
)

/** What was found out about a value. */
export interface Survey {
  /** What is wrong with it, and where; undefined if it can be kept. */
  bad: string | undefined
  /** Whether JSON tells all of it. */
  plain: boolean
  /** Whether it contains itself. */
  cyclic: boolean
}

/** Finds out whether a value would come back equal, and what it takes. */
export function survey(value: unknown): Survey {
  return new Surveyor().survey(value)
}

class Surveyor {
  #plain = true
  #cyclic = false
  /** Where the first reserved key is. */
  #reserved: string | undefined
  /** Where we are. */
  readonly #path: string[] = []
  /** The objects around it. */
  readonly #above = new Set<object>()

  survey(value: unknown): Survey {
    const wrong = this.#inspect(value)
    const bad = wrong && `${this.#here()} is ${wrong}`
    const reserved =
      !this.#plain && this.#reserved && `${this.#reserved} is a key that only plain JSON may have`
    return { bad: bad || reserved || undefined, plain: this.#plain, cyclic: this.#cyclic }
  }

  #here(): string {
    return ['value', ...this.#path].join('')
  }

  #inspect(value: unknown): string | undefined {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return undefined
      case 'number':
        if (!Number.isFinite(value) || Object.is(value, -0)) this.#plain = false
        return undefined
      case 'undefined':
      case 'bigint':
        this.#plain = false
        return undefined
      case 'object':
        return value === null ? undefined : this.#inspectObject(value)
      default:
        return `a ${typeof value}`
    }
  }

  #inspectObject(value: object): string | undefined {
    if (this.#above.has(value)) {
      this.#plain = false
      this.#cyclic = true
      return undefined
    }
    const members = membersOf(value)
    if (typeof members === 'string') return members
    if (this.#above.size >= MAX_DEPTH) {
      this.#path.splice(5) // Nobody can read all of it.
      return `nested more than ${MAX_DEPTH} levels deep`
    }
    if (!Array.isArray(value) && !isPlain(value)) this.#plain = false
    this.#above.add(value)
    for (const [step, member] of members) {
      this.#path.push(pathOf(step))
      if (typeof step === 'string' && RESERVED.has(step)) this.#reserved ??= this.#here()
      const bad = this.#inspect(member)
      if (bad) return bad
      this.#path.pop()
    }
    this.#above.delete(value)
    return undefined
  }
}

/** A step on the way to a member: a property's name, an index, or whatever describes it. */
type Step = string | number | { text: string }

/** What a value is made of, with the way there; or what is wrong with it. */
function membersOf(value: object): string | (readonly [Step, unknown])[] {
  const prototype = Object.getPrototypeOf(value)
  // Also what a driver returns as rows: an array of its own class comes back as a plain one.
  if (Array.isArray(value)) return membersOfArray(value)
  if (isPlain(value)) {
    if (Object.getOwnPropertySymbols(value).length > 0) return 'an object with symbols as keys'
    return Object.entries(value)
  }
  if (value instanceof Error) return membersOfError(partsOf(value))
  if (value instanceof Date && Number.isNaN(value.getTime())) return 'an invalid Date'
  if (prototype === Map.prototype || prototype === Set.prototype) {
    if (Object.keys(value).length > 0) return `a ${nameOf(value)} with properties`
    return value instanceof Map ? membersOfMap(value) : membersOfSet(value as Set<unknown>)
  }
  if (ATOMS.has(prototype)) return []
  if (typeof (value as PromiseLike<unknown>).then === 'function') return 'a promise (await it)'
  const name = nameOf(value)
  return name ? `an instance of ${name}` : 'an instance of a class'
}

function membersOfArray(items: unknown[]): string | (readonly [Step, unknown])[] {
  // Holes and further properties would be lost. Indexes come first, in their order.
  const keys = Object.keys(items)
  const { length } = items
  const dense = keys.length === length && (length === 0 || keys[length - 1] === String(length - 1))
  return dense ? [...items.entries()] : 'an array with holes or properties'
}

function membersOfMap(map: Map<unknown, unknown>): (readonly [Step, unknown])[] {
  return [...map].flatMap(([key, item], i) => [
    [{ text: `.keys()[${i}]` }, key] as const,
    [
      { text: typeof key === 'object' ? `.values()[${i}]` : `.get(${JSON.stringify(shown(key))})` },
      item,
    ] as const,
  ])
}

function membersOfSet(set: Set<unknown>): (readonly [Step, unknown])[] {
  return [...set].map((item, i) => [{ text: `.values()[${i}]` }, item])
}

function membersOfError({ cause, errors, own }: ErrorParts): (readonly [Step, unknown])[] {
  return Object.entries({ ...own, ...(cause && { cause: cause.value }), ...(errors && { errors }) })
}

function shown(key: unknown): unknown {
  return typeof key === 'string' || typeof key === 'number' ? key : String(key)
}

function pathOf(step: Step): string {
  if (typeof step === 'number') return `[${step}]`
  if (typeof step === 'object') return step.text
  return /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`
}

function nameOf(value: object): string | undefined {
  return value.constructor?.name
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
