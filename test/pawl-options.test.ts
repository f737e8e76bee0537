import { describe, expect, it } from 'vitest'
import { Pawl } from '../lib/index.ts'
import { parseOptions } from '../lib/options/parse-options.ts'
import { pawlOptions } from '../lib/pawl-options.ts'
import { thrown } from './helpers/thrown.ts'

const pawl = (options: object) =>
  new Pawl({ database: 'postgres://localhost/x', ...options } as never)

describe('options of new Pawl()', () => {
  it('have the defaults that the README states', () => {
    const { logger, ...defaults } = parseOptions(pawlOptions, { database: 'x' }, 'new Pawl()')
    expect(defaults).toEqual({
      database: 'x',
      schema: 'pawl',
      maxConnections: 5,
      migrate: false,
      processTimeout: 15_000,
      storeTimeout: 5000,
      drainTimeout: 10_000,
      retentionInterval: 60_000,
      encryptionKeys: [],
      limits: { input: 1024 ** 2, output: 1024 ** 2, step: 1024 ** 2, steps: 10_000 },
      workers: { concurrency: 100 },
    })
    expect(logger).toHaveProperty('warn')
  })

  it.each([
    ['database', undefined, 'a pg.Pool, a connection string, or a PGlite instance'],
    ['database', null, 'a pg.Pool, a connection string, or a PGlite instance'],
    ['database', 7, 'a pg.Pool, a connection string, or a PGlite instance'],
    ['database', '', 'a pg.Pool, a connection string, or a PGlite instance'],
    ['database', {}, 'a pg.Pool, a connection string, or a PGlite instance'],
    ['database', { connectionString: 'postgres://x' }, 'a pg.Pool, a connection string'],
    ['schema', 'Robert"; drop table students', 'a lower-case identifier'],
    ['schema', 'x'.repeat(64), 'at most 63'],
    ['instance', '', 'a name'],
    ['instance', 'x'.repeat(256), 'at most 255 characters'],
    ['instance', 'a\0b', 'without NUL'],
    ['instance', '\ud800', 'without NUL'],
    ['migrate', 'true', 'true or false'],
    ['processTimeout', '25 days', 'at most 24 days'],
    ['processTimeout', 10, 'at least 1 second'],
    ['storeTimeout', 0, 'more than 0'],
    ['drainTimeout', 'soon', 'milliseconds'],
    ['retentionInterval', 0, 'more than 0'],
    ['logger', {}, 'debug(message, fields)'],
  ])('a wrong %s (%j) is an error at construction', (name, value, allowed) => {
    const error = thrown(() => pawl({ [name]: value }))
    expect(error.code).toBe('invalid-option')
    expect(error.message).toContain(`"${name}"`)
    expect(error.message).toContain(allowed)
  })
})
