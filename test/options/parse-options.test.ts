import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  byteSize,
  callback,
  duration,
  parseOptions,
  positiveDuration,
  timerDuration,
} from '../../lib/options/parse-options.ts'
import { thrown } from '../helpers/thrown.ts'

const schema = z.strictObject({
  keep: duration.optional(),
  wait: timerDuration.default(5000),
  timeout: positiveDuration.optional(),
  size: byteSize.optional(),
  run: callback.optional(),
  encryptionKeys: z.array(z.string(), 'an array').optional(),
})
const parse = (options: unknown) => parseOptions(schema, options, 'test()')

describe('parseOptions', () => {
  it.each([
    [{ wait: 250 }, { wait: 250 }],
    [{ wait: '250ms' }, { wait: 250 }],
    [{ wait: '1.5s' }, { wait: 1500 }],
    [{ wait: '2 minutes' }, { wait: 120_000 }],
    [{ wait: 0 }, { wait: 0 }],
    [{ keep: '3 days' }, { wait: 5000, keep: 259_200_000 }],
    [{ size: '512kb' }, { wait: 5000, size: 524_288 }],
    [{ size: 0 }, { wait: 5000, size: 0 }],
    [undefined, { wait: 5000 }],
  ])('%j is understood', (given, understood) => {
    expect(parse(given)).toEqual(understood)
  })

  it.each([
    ['wait', -1, 'milliseconds'],
    ['wait', Number.POSITIVE_INFINITY, 'milliseconds'],
    ['wait', Number.NaN, 'milliseconds'],
    ['wait', '5', 'milliseconds'],
    ['wait', '', 'milliseconds'],
    ['wait', '5 s later', 'milliseconds'],
    ['wait', '5 parsecs', "milliseconds, or a string like '500ms'"],
    ['wait', ['5s'], 'milliseconds'],
    ['wait', null, 'milliseconds'],
    ['wait', '30 days', 'at most 24 days'],
    ['timeout', 0, 'more than 0'],
    ['size', -1, 'bytes'],
    ['size', '1 light year', "bytes, or a string like '512kb'"],
    ['run', true, 'a function'],
  ])(
    'a wrong %s (%j) is an error that names option, value and what is allowed',
    (name, value, allowed) => {
      const error = thrown(() => parse({ [name]: value }))
      expect(error.code).toBe('invalid-option')
      const shown = typeof value === 'number' ? String(value) : JSON.stringify(value)
      expect(error.message).toContain(`test(): Option "${name}" is ${shown}; allowed: ${allowed}`)
    },
  )

  it('an option that does not exist is an error that lists those that do', () => {
    const error = thrown(() => parse({ weight: 5 }))
    expect(error.message).toMatch(/no option "weight"; there are: keep, wait, timeout/)
  })

  it('several wrong options are reported together', () => {
    const error = thrown(() => parse({ wait: '', size: 'x' }))
    expect(error.message).toMatch(/"wait".*"size"/)
  })

  it('a secret is not repeated in a message', () => {
    const error = thrown(() => parse({ encryptionKeys: ['secret', 7] }))
    expect(error.message).toContain('Option "encryptionKeys.1" is not shown')
    expect(thrown(() => parse({ encryptionKeys: 'secret' })).message).not.toContain('secret')
  })

  it('an option that is undefined gets its default', () => {
    expect(parse({ wait: undefined })).toEqual({ wait: 5000 })
  })

  it.each([['strict'], [7], [[]], [() => 1]])('options that are %j are no options', (options) => {
    const error = thrown(() => parse(options))
    expect(error.code).toBe('invalid-option')
    expect(error.message).toMatch(/the options are .*; allowed: an object/)
  })
})
