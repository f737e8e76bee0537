import { describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import { routeOptions } from '../../lib/http/route-options.ts'
import { Pawl } from '../../lib/index.ts'
import { thrown } from '../helpers/thrown.ts'

const route = (options: object) => routeOptions(options as never)
describe('options of idempotency()', () => {
  it('have the defaults that the README states', () => {
    const { storedHeaders, ...defaults } = routeOptions(undefined)
    expect(defaults).toEqual({
      scope: undefined,
      key: 'idempotency-key',
      keyHeader: 'Idempotency-Key',
      methods: new Set(['POST', 'PATCH']),
      skip: undefined,
      required: false,
      strict: false,
      fingerprint: undefined,
      wait: 5000,
      resumable: undefined,
      recover: undefined,
      transaction: undefined,
      retention: { completed: 86_400_000, unfinished: 259_200_000 },
      maxBody: 1_048_576,
      maxRequestBody: 10_485_760,
      timeout: 60_000,
      onStoreError: 'refuse',
    })
    const names = [
      'content-type',
      'x-anything',
      'set-cookie',
      'date',
      'transfer-encoding',
      'connection',
    ]
    expect(names.filter(storedHeaders)).toEqual(['content-type', 'x-anything'])
  })

  it.each([
    [{ wait: '250ms' }, { wait: 250 }],
    [{ retention: '3 days' }, { retention: { completed: 259_200_000, unfinished: 259_200_000 } }],
    [{ retention: '1h' }, { retention: { completed: 3_600_000, unfinished: 259_200_000 } }],
    [
      { retention: { unfinished: '1h' } },
      { retention: { completed: 86_400_000, unfinished: 3_600_000 } },
    ],
    [{ maxBody: '512kb' }, { maxBody: 524_288 }],
    [{ maxBody: 0 }, { maxBody: 0 }],
    [{ methods: ['post', 'DELETE'] }, { methods: new Set(['POST', 'DELETE']) }],
    [{ methods: 'all' }, { methods: 'all' }],
    [{ key: 'PayPal-Request-Id' }, { key: 'paypal-request-id' }],
  ])('%j is understood', (given, understood) => {
    expect(route(given)).toMatchObject(understood)
  })

  it.each([
    ['scope', 'user', 'a function'],
    ['key', 'no header: at all', 'the name of a header'],
    ['key', 7, 'the name of a header'],
    ['methods', 'POST', "'all', or an array"],
    ['methods', [], "'all', or an array"],
    ['skip', true, 'a function'],
    ['required', 'yes', 'true or false'],
    ['strict', 1, 'true or false'],
    ['fingerprint', 'body', 'a function'],
    ['wait', '5 parsecs', "milliseconds, or a string like '500ms'"],
    ['methods', ['PSOT'], 'methods that Node knows'],
    ['methods', ['POST', ''], 'methods that Node knows'],
    ['retention', 1e300, 'at most 100 years'],
    ['retention', '40000 days', 'at most 100 years'],
    ['maxBody', -1, 'bytes'],
    ['maxRequestBody', '2gb', 'at most 1gb'],
    ['maxRequestBody', 'much', 'bytes, or a string'],
    ['timeout', '25 days', 'at most 24 days'],
    ['storedHeaders', ['a:b'], 'the name of a header'],
    ['wait', '30 days', 'at most 24 days'],
    ['resumable', 'sure', 'true or false'],
    ['retention', 'forever', "a duration like '24h'"],
    ['maxBody', '1 light year', "bytes, or a string like '512kb'"],
    ['maxBody', '1gb', 'at most 256mb'],
    ['storedHeaders', 'all', 'an array of header names, or a function'],
    ['timeout', 0, 'more than 0'],
    ['onStoreError', 'ignore', "'refuse' or 'run'"],
  ])(
    'a wrong %s (%j) is an error that names option, value and what is allowed',
    (name, value, allowed) => {
      const error = thrown(() => route({ [name]: value }))
      expect(error.code).toBe('invalid-option')
      expect(error.message).toMatch(new RegExp(`Option "${name}[".]`))
      // Of a list, the wrong entry.
      const wrong = Array.isArray(value) ? value.at(-1) : value
      expect(error.message).toContain(
        typeof wrong === 'number' || wrong === undefined
          ? String(wrong ?? '')
          : JSON.stringify(wrong),
      )
      expect(error.message).toContain(allowed)
    },
  )

  it('a wrong entry of a list is named', () => {
    const error = thrown(() => route({ storedHeaders: ['ETag', 'a b'] }))
    expect(error.message).toContain(
      'Option "storedHeaders.1" is "a b"; allowed: the name of a header',
    )
  })

  it('the parts of retention are checked one by one', () => {
    for (const retention of [{ completed: 'x' }, { unfinished: '36600 days' }, { forever: 1 }]) {
      expect(thrown(() => route({ retention })).message).toContain('Option "retention')
    }
  })

  it('undefined is as good as nothing', () => {
    expect(route({ wait: undefined, methods: undefined, retention: undefined })).toMatchObject({
      wait: 5000,
      methods: new Set(['POST', 'PATCH']),
      retention: { completed: 86_400_000 },
    })
  })

  it.each([['strict'], [7], [[]], [() => 1]])('options that are %j are no options', (options) => {
    const error = thrown(() => idempotency(new Pawl({ database: 'x' }), options as never))
    expect(error.code).toBe('invalid-option')
    expect(error.message).toMatch(/the options are .*; allowed: an object/)
  })

  it.each([undefined, null, { scope: () => 'x' }, 'pawl'])(
    'a first argument that is no Pawl (%j) is an error at construction, not at the first request',
    (first) => {
      const error = thrown(() => idempotency(first as never))
      expect(error.code).toBe('invalid-option')
      expect(error.message).toMatch(/first argument is not a Pawl/)
    },
  )
})
