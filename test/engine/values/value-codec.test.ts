import { deepStrictEqual } from 'node:assert'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeValue, encodeError, encodeValue } from '../../../lib/engine/values/value-codec.ts'
import { StepInterruptedError, TerminalError } from '../../../lib/index.ts'
import { anyText } from '../../helpers/any-text.ts'
import { cases } from '../../helpers/proof.ts'

function roundTrip<T>(value: T): T {
  return decodeValue(encodeValue(value)) as T
}

/** Comes back equal, with equal prototypes, and in the same order where there is one. */
function expectKept(value: unknown): void {
  deepStrictEqual(roundTrip(value), value)
}

const plainJson = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(null, true, false),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (Object.is(n, -0) ? 0 : n)),
    anyText(),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(
      fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', 'a.b', '\\', '0')),
      tie('value'),
      { maxKeys: 5, noNullPrototype: true },
    ),
  ),
})).value

// Keys that look like paths, indexes or escapes. `constructor` and its like are a case of their own.
const richKey = fc.oneof(
  fc.string().filter((key) => !['__proto__', 'constructor', 'prototype'].includes(key)),
  fc.constantFrom('a.b', '\\', '\\.', '0', '1.0', '', 'json', 'meta', 'toString', 'hasOwnProperty'),
)
const bytes = fc.uint8Array({ maxLength: 24 })
const leaf = fc.oneof(
  fc.constantFrom(undefined, null, true, Number.NaN, Infinity, -Infinity, -0, 0),
  fc.double(),
  fc.bigInt(),
  anyText(),
  fc.date({ noInvalidDate: true }),
  bytes,
  bytes.map((b) => Buffer.from(b)),
  bytes.map((b) => new Uint8Array(b).buffer),
  fc.float64Array({ maxLength: 5 }),
  fc.float32Array({ maxLength: 5 }),
  fc.bigInt64Array({ maxLength: 5 }),
  fc.bigUint64Array({ maxLength: 5 }),
  fc.uint8ClampedArray({ maxLength: 5 }),
  bytes.map((b) => new DataView(new Uint8Array(b).buffer)),
  fc.constantFrom(/a\/b/giu, new URL('https://example.com/ü?q=1#h')),
)
const rich = fc.letrec<{ value: unknown; error: Error }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(richKey, tie('value'), { maxKeys: 4, noNullPrototype: true }),
    fc.array(fc.tuple(tie('value'), tie('value')), { maxLength: 4 }).map((pairs) => new Map(pairs)),
    fc.array(tie('value'), { maxLength: 4 }).map((items) => new Set(items)),
    tie('error'),
    // The same object in two places.
    tie('value').map((value) => [value, { again: value, set: new Set([1n, value]) }]),
  ),
  error: fc
    .tuple(
      fc.constantFrom(Error, TypeError, RangeError, AggregateError, TerminalError),
      fc.string(),
      fc.option(tie('value'), { nil: undefined }),
      fc.dictionary(fc.constantFrom('code', 'errors', 'status', 'detail'), tie('value'), {
        noNullPrototype: true,
      }),
    )
    .map(([type, message, cause, own]) => {
      const options = cause === undefined ? undefined : { cause }
      const error =
        type === AggregateError
          ? new AggregateError([cause, 1n], message, options)
          : new (type as ErrorConstructor)(message, options)
      if (error instanceof AggregateError) delete own.errors
      return Object.assign(error, own)
    }),
}))

describe('values', () => {
  it('plain JSON is kept as plain JSON, whatever its keys', () => {
    fc.assert(
      fc.property(plainJson, (value) => {
        const bytes = encodeValue(value) as Buffer
        expect(bytes.toString()).toBe(JSON.stringify(value))
        expectKept(value)
      }),
      { numRuns: cases(100, { proof: 300 }) },
    )
  })

  it('every keepable value comes back equal', () => {
    fc.assert(fc.property(rich.value, expectKept), { numRuns: cases(250, { proof: 1000 }) })
  })

  it('orders are kept: of keys, of a Set, of a Map', () => {
    const shared = { id: 1n }
    const set = new Set<unknown>([shared, 'a', 2n, shared, new Date(0)])
    const map = new Map<unknown, unknown>([
      [2n, shared],
      ['b', set],
      [1n, shared],
    ])
    const again = roundTrip({ map, set, shared })
    expect([...again.set]).toEqual([...set])
    expect([...again.map.keys()]).toEqual([2n, 'b', 1n])
  })

  it('cycles come back as cycles', () => {
    const order: Record<string, unknown> = { at: new Date(0), lines: [] as unknown[] }
    ;(order.lines as unknown[]).push({ order }, order)
    order.self = order
    expectKept(order)
    const list: unknown[] = []
    list.push([list])
    expectKept(list)
  })

  it('a cycle that would not come back equal is refused', () => {
    const error = new Error('x')
    const context = { error }
    error.cause = context
    const map = new Map<unknown, unknown>()
    map.set(map, 1)
    for (const value of [context, error, map]) {
      try {
        expectKept(value)
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: 'value-unkeepable' })
      }
    }
  })

  it('undefined is kept as nothing, and not as null', () => {
    expect(encodeValue(undefined)).toBeNull()
    expect(roundTrip(undefined)).toBeUndefined()
    expectKept([undefined, { a: undefined, b: null }])
  })

  it('NUL, lone surrogates and other text that PostgreSQL would refuse are kept', () => {
    expectKept('a\0b')
    expectKept({ '\0': '\ud800', '\udfff': new Date(0) })
    expectKept(['\ud800\ud800', 1n, '\u2028'])
  })

  it('an array of a class comes back as a plain one: rows as drivers return them', () => {
    class Rows extends Array {}
    const rows = Rows.from([{ id: 1 }])
    expect(decodeValue(encodeValue(rows))).toEqual([{ id: 1 }])
  })

  class Money {
    constructor(readonly cents = 1) {}
  }
  class MyDate extends Date {}
  class MyMap extends Map {}
  class MyList extends Array {}
  class MyBytes extends Uint8Array {}
  const holes: unknown[] = [1]
  holes[2] = 3
  const holesAndProperties = Object.assign([...holes], { x: 1 })
  delete holesAndProperties[1]
  let deep: unknown = 1
  for (let i = 0; i < 100_000; i++) deep = [deep]

  it.each<[string, unknown, string]>([
    ['a function', () => 1, 'value is a function'],
    ['a function in an object', { a: [{ f() {} }] }, 'value.a[0].f is a function'],
    ['a symbol', { 'a-b': Symbol('x') }, 'value["a-b"] is a symbol'],
    ['a symbol as a key', { [Symbol('x')]: 1 }, 'an object with symbols as keys'],
    ['a class instance', { price: new Money() }, 'value.price is an instance of Money'],
    ['a Date of a class', [new MyDate(0)], 'value[0] is an instance of MyDate'],
    ['a Map of a class', [new MyMap()], 'value[0] is an instance of MyMap'],
    [
      'an array of a class, with properties',
      { rows: Object.assign(new MyList(), { count: 1 }) },
      'value.rows is an array with holes or properties',
    ],
    ['bytes of a class', { b: new MyBytes(2) }, 'value.b is an instance of MyBytes'],
    ['a promise', { later: Promise.resolve(1) }, 'value.later is a promise (await it)'],
    ['an invalid date', { at: new Date(Number.NaN) }, 'value.at is an invalid Date'],
    ['a sparse array', { a: holes }, 'value.a is an array with holes or properties'],
    ['as many holes as properties', holesAndProperties, 'value is an array with holes or'],
    ['a match', 'abc'.match(/b/), 'value is an array with holes or properties'],
    ['a Map with properties', Object.assign(new Map(), { x: 1 }), 'value is a Map with properties'],
    ['in a Map', new Map([['k', { v: new Money() }]]), 'value.get("k").v is an instance of Money'],
    ['in a key of a Map', new Map([[new Money(), 1]]), 'value.keys()[0] is an instance of Money'],
    ['under a key without a text', new Map([[Object.create(null), new Money()]]), 'of Money'],
    ['in a Set', new Set([1, new Money()]), 'value.values()[1] is an instance of Money'],
    ['in a cause', new Error('x', { cause: { m: new Money() } }), 'value.cause.m is an instance'],
    ['in an error', Object.assign(new Error('x'), { m: new Money() }), 'value.m is an instance of'],
    ['in errors', new AggregateError([new Money()]), 'value.errors[0] is an instance of Money'],
    ['a WeakMap', [new WeakMap()], 'value[0] is an instance of WeakMap'],
    ['a boxed string', { s: new String('x') }, 'value.s is an instance of String'],
    [
      'constructor beside a Date',
      { a: { constructor: 1, at: new Date(0) } },
      'value.a.constructor',
    ],
    ['__proto__ beside a Date', [JSON.parse('{"__proto__": 1}'), 1n], 'value[0].__proto__'],
    ['prototype of an error', Object.assign(new Error('x'), { prototype: 1 }), 'value.prototype'],
    ['what is nested too deeply', deep, 'levels'],
  ])('refused: %s', (_, value, message) => {
    expect(() => encodeValue(value)).toThrow(
      expect.objectContaining({
        code: 'value-unkeepable',
        message: expect.stringContaining(message),
      }),
    )
  })

  it('what is nested a few hundred levels deep is kept', () => {
    let nested: unknown = new Date(0)
    for (let i = 0; i < 400; i++) nested = i % 2 ? [nested] : { nested }
    expectKept(nested)
  })

  it('no value of JSON that was stored reaches a prototype', () => {
    const stored = JSON.stringify({
      json: { a: 1 },
      meta: { values: { '__proto__.x': ['Date'], 'constructor.prototype.y': ['Date'] }, v: 1 },
    })
    const bytes = Buffer.concat([Buffer.of(1), Buffer.from(stored)])
    expect(() => decodeValue(bytes)).toThrow()
    expect({}).not.toHaveProperty('x')
  })

  it('a megabyte is quick, plain or not', () => {
    const row = { id: 1, name: 'x'.repeat(80), tags: ['a', 'b'] }
    const rows = Array.from({ length: 8000 }, (_, id) => ({ ...row, id }))
    const dated = rows.map((row) => ({ ...row, at: new Date(row.id) }))
    const took = (value: unknown) => {
      const started = performance.now()
      expectKept(value)
      return performance.now() - started
    }
    expect(JSON.stringify(rows).length).toBeGreaterThan(2 ** 20 * 0.9)
    expect(took(rows)).toBeLessThan(5000)
    expect(took(dated)).toBeLessThan(20_000)
    expect(took(Buffer.alloc(2 ** 20, 7))).toBeLessThan(5000)
  })
})

describe('errors', () => {
  it('keep their class, name, message, stack, cause and properties', () => {
    const error = new TypeError('outer', { cause: new RangeError('inner') })
    Object.assign(error, { code: 'E1', errors: [{ path: 'a' }] })
    error.name = 'MyError'
    const again = roundTrip({ error }).error as TypeError & Record<string, unknown>
    deepStrictEqual(again, error)
    expect(again).toBeInstanceOf(TypeError)
    expect(again.cause).toBeInstanceOf(RangeError)
    expect(again.stack).toBe(error.stack)
    expect(again.errors).toEqual([{ path: 'a' }])
    expect(Object.keys(again)).toEqual(Object.keys(error))
  })

  it('of the app come back as the nearest class that everybody knows, under their own name', () => {
    class Declined extends TerminalError {
      override readonly name: string = 'Declined'
      readonly reason = 'funds'
    }
    const again = roundTrip(new Declined('no', { status: 402 }) as Error)
    expect(again).toBeInstanceOf(TerminalError)
    expect(again).toMatchObject({ name: 'Declined', reason: 'funds', status: 402, message: 'no' })
    const interrupted = roundTrip(new StepInterruptedError('wire') as Error)
    expect(interrupted).toBeInstanceOf(StepInterruptedError)
    expect(interrupted).toMatchObject({ step: 'wire', code: 'step-interrupted' })
    const all = roundTrip(new AggregateError([new TypeError('a')], 'all'))
    expect(all.errors[0]).toBeInstanceOf(TypeError)
  })

  it('that are recorded as a failure are reduced to what can be kept', () => {
    const socket = new (class Socket {})()
    const transport = Object.assign(new Error('402 from the provider'), {
      code: 'card_declined',
      request: { socket },
      config: { transform: () => 1 },
    })
    const error = new TerminalError('declined', { status: 402, cause: transport })
    expect(() => encodeValue(error)).toThrow(
      /value\.cause\.request\.socket is an instance of Socket/,
    )
    const again = decodeValue(encodeError(error)) as TerminalError
    expect(again).toBeInstanceOf(TerminalError)
    expect(again).toMatchObject({ message: 'declined', status: 402, stack: error.stack })
    expect(again.cause).toMatchObject({ message: '402 from the provider', code: 'card_declined' })
    expect(again.cause).not.toHaveProperty('request')
    const cyclic = new TerminalError('self')
    Object.assign(cyclic, { cause: cyclic, nothing: () => {} })
    expect(decodeValue(encodeError(cyclic))).toMatchObject({ message: 'self', status: 422 })
    const text = new TerminalError('x', { cause: Symbol('y') })
    expect(decodeValue(encodeError(text))).toMatchObject({ message: 'x' })
  })
})
