import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseKeyHeader, validateKey } from '../../lib/http/idempotency-key.ts'
import { anyText } from '../helpers/any-text.ts'
import { cases } from '../helpers/proof.ts'

const printable = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
  maxLength: 255,
})
const quote = (key: string) => `"${key.replace(/["\\]/g, '\\$&')}"`
const keyOf = (value: string, strict = false) => {
  const parsed = parseKeyHeader([value], strict)
  return 'key' in parsed ? parsed.key : null
}

describe('parseKeyHeader', () => {
  it('gives back any printable key that was quoted, strict or not', () => {
    fc.assert(
      fc.property(printable, fc.boolean(), (key, strict) => {
        expect(keyOf(quote(key), strict)).toBe(key)
        expect(keyOf(`  ${quote(key)} `, strict)).toBe(key)
      }),
    )
  })

  it('never throws, and gives a key of 1 to 255 characters or a rule', () => {
    fc.assert(
      fc.property(
        fc.array(anyText({ maxLength: 400 }), { maxLength: 3 }),
        fc.boolean(),
        (lines, strict) => {
          const parsed = parseKeyHeader(lines, strict)
          if ('key' in parsed) {
            expect(parsed.key.length).toBeGreaterThanOrEqual(1)
            expect(parsed.key.length).toBeLessThanOrEqual(255)
          } else expect(parsed.brokenRule).toMatch(/must/)
        },
      ),
      { numRuns: cases(250, { proof: 1000 }) },
    )
  })

  it('row 21: a bare key names the same key as the quoted one', () => {
    const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9._~+/-]{0,200}$/)
    fc.assert(
      fc.property(fc.oneof(token, fc.uuid()), (key) => {
        expect(keyOf(key)).toBe(key)
        expect(keyOf(quote(key))).toBe(key)
        expect(keyOf(key, true)).toBeNull()
      }),
    )
  })

  it.each([
    '8e03978e-40d5-43e8-bc93-6894a57f9324',
    '01ARZ3NDEKTSV4RRFFQ69G5FAV',
    '_-nanoid_V1StGXR8_Z5jdHi6B-myT',
    'b3JkZXItMTIz/w==',
    'order:42',
    '*star',
  ])('accepts the bare key %s that clients send', (key) => {
    expect(keyOf(key)).toBe(key)
  })

  it('ignores parameters of either form', () => {
    expect(keyOf('"abc";v=1;x')).toBe('abc')
    expect(keyOf('abc;v=1')).toBe('abc')
    expect(keyOf('8e03;v="x y"')).toBe('8e03')
  })

  it.each([
    ['nothing', ''],
    ['only spaces', '   '],
    ['an empty string', '""'],
    ['256 characters', quote('x'.repeat(256))],
    ['256 bare characters', 'x'.repeat(256)],
    ['an open quote', '"abc'],
    ['a quote in the middle', 'ab"c'],
    ['an unknown escape', '"a\\b"'],
    ['a list', '"a", "b"'],
    ['a bare list', 'a, b'],
    ['an inner list', '("a" "b")'],
    ['an integer', '42'],
    ['a negative decimal', '-4.2'],
    ['a very long integer', '12345678901234567890'],
    ['a boolean', '?1'],
    ['a byte sequence', ':YWJj:'],
    ['a date', '@1659578233'],
    ['a display string', '%"f%c3%bc"'],
    ['single quotes', "'abc'"],
    ['a space inside', 'a b'],
    ['text after the string', '"abc"d'],
    ['control characters', '"a\u0001b"'],
    ['a tab', '"a\tb"'],
    ['non-ASCII', '"schlüssel"'],
    ['bare non-ASCII', 'schlüssel'],
    ['broken parameters', 'abc;=1'],
  ])('row 28: refuses %s, and names the rule', (_, value) => {
    for (const strict of [true, false]) {
      const parsed = parseKeyHeader([value], strict)
      expect(parsed).toEqual({ brokenRule: expect.stringMatching(/must/) })
    }
  })

  it('row 28: refuses two header lines, even if they say the same', () => {
    expect(parseKeyHeader(['"a"', '"a"'], false)).toEqual({
      brokenRule: 'the header must not be repeated',
    })
  })
})

describe('validateKey, for keys that the app finds itself', () => {
  it('accepts any well-formed text of 1 to 255 characters', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 100 }), (key) => {
        const parsed = validateKey(key)
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
        const valid = key.isWellFormed() && !/[\u0000-\u001f\u007f]/.test(key)
        expect('key' in parsed).toBe(valid)
      }),
    )
    expect(validateKey('Schlüssel 🔑')).toEqual({ key: 'Schlüssel 🔑' })
  })

  it.each([7, {}, '', 'x'.repeat(256), 'a\0b', '\ud800'])('refuses %j', (key) => {
    expect(validateKey(key)).toEqual({ brokenRule: expect.stringMatching(/must/) })
  })
})
