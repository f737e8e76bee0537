import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseKeyHeader } from '../../lib/http/idempotency-key.ts'

/**
 * In the form of the test cases of the HTTP working group (structured-field-tests), so that theirs can
 * be put beside them. What is Pawl's own is what a key is beyond a string.
 */
interface StringCase {
  name: string
  raw: string[]
  /** The string, and its parameters. */
  expected?: [value: string, parameters: unknown[]]
  /** It is no string. */
  must_fail?: true
  /** It is a string, but no key: empty, too long, or on two lines. */
  key_fails?: true
  /** It is no string, but white space around a field's value is not part of it (RFC 9110, 5.5). */
  key_accepts?: string
}

const cases: StringCase[] = JSON.parse(
  readFileSync(new URL('data/structured-field-strings.json', import.meta.url), 'utf8'),
)

describe('Keys as structured-field strings (RFC 8941, section 3.3.3)', () => {
  const named = cases.map((what) => [what.name, what] as const)

  it.each(named)('%s', (_, { raw, expected, must_fail, key_fails, key_accepts }) => {
    const parsed = parseKeyHeader(raw, true)
    if (key_accepts !== undefined) expect(parsed).toEqual({ key: key_accepts })
    else if (must_fail || key_fails)
      expect(parsed).toEqual({ brokenRule: expect.stringMatching(/must/) })
    else expect(parsed).toEqual({ key: expected?.[0] })
  })

  it.each(named.filter(([, { raw }]) => raw[0]?.trim().startsWith('"')))(
    '%s: the same where bare tokens are accepted',
    (_, { raw }) => {
      expect(parseKeyHeader(raw, false)).toEqual(parseKeyHeader(raw, true))
    },
  )

  const characters = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code))
  const hex = (text: string) => `0x${text.charCodeAt(0).toString(16).padStart(2, '0')}`

  it.each(characters.map((text) => [hex(text), text]))('%s inside a string', (_, character) => {
    const allowed = character >= ' ' && character <= '~' && !'"\\'.includes(character)
    const parsed = parseKeyHeader([`"a${character}b"`], true)
    if (allowed) expect(parsed).toEqual({ key: `a${character}b` })
    else expect(parsed).toHaveProperty('brokenRule')
  })

  it.each(characters.map((text) => [hex(text), text]))('%s escaped', (_, character) => {
    const parsed = parseKeyHeader([`"a\\${character}b"`], true)
    if ('"\\'.includes(character)) expect(parsed).toEqual({ key: `a${character}b` })
    else expect(parsed).toHaveProperty('brokenRule')
  })
})
