import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type FingerprintInput,
  fingerprint,
  fingerprintValue,
  NotJsonError,
} from '../../lib/http/fingerprint.ts'
import { anyCharacter } from '../helpers/any-text.ts'
import { cases } from '../helpers/proof.ts'

const raw = (text: string | Uint8Array) => ({
  raw: [typeof text === 'string' ? Buffer.from(text) : text],
})
const base = {
  method: 'POST',
  url: '/orders',
  contentType: 'application/json',
  body: raw('{}'),
}
const of = (change: Partial<FingerprintInput> = {}, credentials?: string) =>
  fingerprint({ ...base, ...change }, credentials).toString('hex')

/** JSON values without lone surrogates. */
const json = fc
  .jsonValue({ stringUnit: anyCharacter })
  .filter((value) => JSON.stringify(value).isWellFormed())

describe('fingerprint', () => {
  it('is a version byte and a SHA-256', () => {
    const bytes = fingerprint(base, undefined)
    expect(bytes).toHaveLength(33)
    expect(bytes[0]).toBe(1)
  })

  it('is the same in every process and release', () => {
    expect(of()).toBe('01558a77e88de012433aee806faa949a0d29cccd94bc563ab8a5fd3d1af62f2b04')
  })

  it('counts method, URL, query, content type, body and credentials', () => {
    const all = [
      of(),
      of({ method: 'PATCH' }),
      of({ url: '/orders/' }),
      of({ url: '/orders?a=1&b=2' }),
      of({ url: '/orders?b=2&a=1' }),
      of({ contentType: 'application/json; charset=utf-8' }),
      of({ contentType: undefined }),
      of({ body: raw('{ }') }),
      of({ body: raw('') }),
      of({ body: { parsed: {} } }),
      of({}, 'Bearer a'),
      of({}, 'Bearer b'),
    ]
    expect(new Set(all).size).toBe(all.length)
  })

  it('does not care in how many chunks the bytes came', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.nat(), (bytes, at) => {
        const cut = at % (bytes.length + 1)
        const chunks = [bytes.subarray(0, cut), bytes.subarray(cut)]
        expect(of({ body: { raw: chunks } })).toBe(of({ body: raw(bytes) }))
      }),
    )
  })

  it('keeps parts apart that run together', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string({ minLength: 1 }), (a, b, c) => {
        const one = of({ method: a + c, url: b, contentType: undefined })
        const two = of({ method: a, url: c + b, contentType: undefined })
        expect(one).not.toBe(two)
      }),
    )
  })

  it('of a parsed body does not depend on the order of its members', () => {
    const shuffled = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(shuffled)
      if (value === null || typeof value !== 'object') return value
      return Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([k, v]) => [k, shuffled(v)]),
      )
    }
    fc.assert(
      fc.property(json, (value) => {
        expect(of({ body: { parsed: shuffled(value) } })).toBe(of({ body: { parsed: value } }))
      }),
    )
  })

  it('of two different values differs', () => {
    fc.assert(
      fc.property(json, json, (a, b) => {
        const same = JSON.stringify(sorted(a)) === JSON.stringify(sorted(b))
        expect(of({ body: { parsed: a } }) === of({ body: { parsed: b } })).toBe(same)
      }),
      { numRuns: cases(150, { proof: 500 }) },
    )
  })

  it('tells big integers apart by their bytes', () => {
    expect(of({ body: raw('12345678901234567890') })).not.toBe(
      of({ body: raw('12345678901234567891') }),
    )
  })

  it('throws where a parsed body has no canonical form', () => {
    const circular: { self?: unknown } = {}
    circular.self = circular
    for (const parsed of ['\ud800', Number.NaN, circular].map((value) => ({ value }))) {
      expect(() => of({ body: { parsed } })).toThrow()
    }
  })

  it.each([
    ['a Map', new Map([['a', 1]])],
    ['a Set inside', { ids: new Set([1]) }],
    ['URLSearchParams', new URLSearchParams('a=1')],
    ['an ArrayBuffer', new ArrayBuffer(4)],
    ['a bigint', { amount: 12345678901234567890n }],
    ['a function', [() => 1]],
    ['a promise', Promise.resolve(1)],
    ['what hides all it holds', new (class Hidden {})()],
  ])('refuses a parsed body that is %s, whose JSON leaves out what it holds', (_, parsed) => {
    expect(() => of({ body: { parsed } })).toThrow(NotJsonError)
  })

  it('takes what parsers make: objects without a prototype or of a class, dates, nothing', () => {
    class Order {
      amount = 5
    }
    const none = Object.create(null)
    const all = [none, new Order(), { at: new Date(0) }, { at: new Date(1) }, [undefined, 1], null]
    const prints = all.map((parsed) => of({ body: { parsed } }))
    expect(new Set(prints).size).toBe(all.length)
    expect(of({ body: { parsed: { a: 1, b: undefined } } })).toBe(
      of({ body: { parsed: { a: 1 } } }),
    )
  })

  it('row 27: never takes a lone surrogate for another, in a text or in a member', () => {
    const lone = fc.integer({ min: 0xd800, max: 0xdfff }).map((code) => String.fromCharCode(code))
    fc.assert(
      fc.property(lone, fc.string(), (surrogate, text) => {
        for (const parsed of [surrogate, { [surrogate]: text }, [surrogate]]) {
          expect(() => of({ body: { parsed } })).toThrow(/surrogate/)
          expect(() => fingerprintValue(parsed, undefined)).toThrow(/surrogate/)
        }
      }),
    )
  })

  it('keeps bytes, text and JSON of the same letters apart', () => {
    fc.assert(
      fc.property(json, (value) => {
        const text = JSON.stringify(value)
        const bodies = [raw(text), { parsed: text }, { parsed: { text } }]
        expect(new Set(bodies.map((body) => of({ body }))).size).toBe(3)
      }),
    )
  })

  it('of two different requests differs, whatever moves from one part to the next', () => {
    const part = fc.stringMatching(/^[0-9:a]{0,4}$/)
    const parts = fc.tuple(part, part, part, part, part)
    const print = ([method, url, contentType, credentials, body]: string[]) =>
      fingerprint(
        { method: method as string, url: url as string, contentType, body: raw(body as string) },
        credentials,
      ).toString('hex')
    fc.assert(
      fc.property(parts, parts, (a, b) => {
        expect(print(a) === print(b)).toBe(a.join('\n') === b.join('\n'))
      }),
      { numRuns: cases(400, { proof: 2000 }) },
    )
  })

  it('of a form does not count its boundary, but everything between', () => {
    const form = (boundary: string, ...parts: string[]) => ({
      contentType: `multipart/form-data; boundary="${boundary}"`,
      body: raw(
        `${parts.map((part) => `--${boundary}\r\n\r\n${part}\r\n`).join('')}--${boundary}--\r\n`,
      ),
    })
    const text = fc.stringMatching(/^[a-z]{0,10}$/)
    fc.assert(
      fc.property(fc.uuid(), fc.uuid(), text, text, (one, two, a, b) => {
        expect(of(form(one, a, b))).toBe(of(form(two, a, b)))
        if (a !== b) expect(of(form(one, a))).not.toBe(of(form(two, b)))
        expect(of(form(one, a + b))).not.toBe(of(form(one, a, b)))
      }),
    )
  })
})

describe('fingerprint of a form', () => {
  const form = (contentType: string, body = '--b\r\n\r\nx\r\n--b--\r\n') =>
    of({ contentType, body: raw(body) })

  it('counts all of its content type but the boundary', () => {
    const types = [
      'multipart/form-data; boundary=b',
      'multipart/mixed; boundary=b',
      'multipart/form-data; charset=utf-8; boundary=b',
      'multipart/form-data; boundary=b; charset=utf-8',
      'multipart/form-data',
    ]
    expect(new Set(types.map((type) => form(type))).size).toBe(types.length)
    expect(form('multipart/form-data; boundary="b"')).toBe(form(types[0] as string))
  })

  it('is no other request whose bytes look like its parts', () => {
    const plain = ['multipart', 'multipart/form-data', 'multipart/form-data;boundary']
    for (const type of plain) {
      expect(form(type, '0:1:x')).not.toBe(form('multipart/form-data; boundary=b', '--bx'))
    }
  })
})

describe('fingerprintValue', () => {
  it('takes strings, bytes and JSON values, and keeps them apart', () => {
    const values = ['{}', Buffer.from('{}'), {}, [], null, 0]
    const prints = values.map((value) => fingerprintValue(value, undefined).toString('hex'))
    expect(new Set(prints).size).toBe(values.length)
    expect(fingerprintValue({ a: 1, b: 2 }, 'x')).toEqual(fingerprintValue({ b: 2, a: 1 }, 'x'))
    expect(fingerprintValue('a', 'x')).not.toEqual(fingerprintValue('a', 'y'))
  })
})

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (Object.is(value, -0)) return 0
  if (value === null || typeof value !== 'object') return value
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return { object: members.map(([name, member]) => [name, sorted(member)]) }
}
