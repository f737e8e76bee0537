import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { customFingerprint, type Fingerprinted, fingerprint } from '../../lib/http/fingerprint.ts'

const raw = (text: string | Uint8Array) => ({
  raw: [typeof text === 'string' ? Buffer.from(text) : text],
})
const base = {
  method: 'POST',
  url: '/orders',
  contentType: 'application/json',
  body: raw('{}'),
}
const of = (change: Partial<Fingerprinted> = {}, credentials?: string) =>
  fingerprint({ ...base, ...change }, credentials).toString('hex')

/** JSON values without lone surrogates. */
const json = fc
  .jsonValue({ noUnicodeString: false })
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
      { numRuns: 500 },
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

describe('customFingerprint', () => {
  it('takes strings, bytes and JSON values, and keeps them apart', () => {
    const values = ['{}', Buffer.from('{}'), {}, [], null, 0]
    const prints = values.map((value) => customFingerprint(value, undefined).toString('hex'))
    expect(new Set(prints).size).toBe(values.length)
    expect(customFingerprint({ a: 1, b: 2 }, 'x')).toEqual(customFingerprint({ b: 2, a: 1 }, 'x'))
    expect(customFingerprint('a', 'x')).not.toEqual(customFingerprint('a', 'y'))
  })
})

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (Object.is(value, -0)) return 0
  if (value === null || typeof value !== 'object') return value
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return { object: members.map(([name, member]) => [name, sorted(member)]) }
}
