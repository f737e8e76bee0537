import { describe, expect, it } from 'vitest'
import { parsePreferHeader } from '../../lib/http/prefer-header.ts'

/** What it says: whether to answer asynchronously, and within how many seconds. */
const parse = (header: string | undefined) => {
  const { respondAsync, waitMs } = parsePreferHeader(header)
  return [respondAsync, waitMs === undefined ? undefined : waitMs / 1000]
}

describe('The Prefer header (RFC 7240)', () => {
  it.each([
    [undefined, [false, undefined]],
    ['', [false, undefined]],
    ['respond-async', [true, undefined]],
    ['respond-async, wait=10', [true, 10]],
    ['wait=10', [false, 10]],
    // Names are case-insensitive; white space, quotes and an empty value make no difference.
    ['Respond-Async ,\tWAIT = "7"', [true, 7]],
    ['respond-async=""', [true, undefined]],
    // What else is said is ignored, parameters included.
    ['return=minimal; foo="a, respond-async", respond-async; x; ; y=1 , wait=0', [true, 0]],
    [',, respond-async,, wait=1,', [true, 1]],
    ['foo="a\\"b, c", wait=3', [false, 3]],
    // The first of several counts.
    ['wait=1, wait=2, respond-async', [true, 1]],
    // A parameter is no preference.
    ['respond-async; wait=3', [true, undefined]],
  ])('%j', (header, expected) => {
    expect(parse(header)).toEqual(expected)
  })

  it.each(['wait', 'wait=""', 'wait=-1', 'wait=1.5', 'wait=1e3', 'wait="a"', 'wait=99999999999'])(
    'a wait that is no number of seconds is none: %j',
    (header) => {
      expect(parse(`respond-async, ${header}`)).toEqual([true, undefined])
    },
  )

  it.each([
    'respond-async, "',
    'respond-async, "x"',
    'respond-async wait=1',
    'respond-async, =1',
    'respond-async, wait=',
    'respond-async, wait=1 2',
    'respond-async, foo="a\\"',
    'respond-async; wait=1=2',
    'respond-async, schön',
  ])('a header that is malformed says nothing: %j', (header) => {
    expect(parse(header)).toEqual([false, undefined])
  })

  it.each([',', ' ', 'a;', 'a ', 'foo="\\"', '="', '; '])(
    'a long header of %j is read in no time',
    (piece) => {
      const header = `respond-async${piece.repeat(100_000 / piece.length)}"`
      const started = process.cpuUsage()
      expect(parse(header)).toEqual([false, undefined])
      expect(process.cpuUsage(started).user / 1000).toBeLessThan(5000) // ms; backtracking takes forever
    },
  )
})
