import { describe, expect, it } from 'vitest'
import { classify } from '../../../lib/store/database/database.ts'

const failed = (code: unknown, fields: object = {}) =>
  Object.assign(new Error('x'), { code }, fields)
/** As Node reports what a system call said. */
const system = (code: string) => failed(code, { errno: -1, syscall: 'write' })

describe('what a failed statement means', () => {
  it.each([
    ['a refused connection', system('ECONNREFUSED')],
    ['a reset connection', system('ECONNRESET')],
    ['a broken pipe, though EPIPE has the form of an SQLSTATE', system('EPIPE')],
    ['a name that does not resolve', system('ENOTFOUND')],
    ['an error of the driver, which has no code', new Error('Connection terminated unexpectedly')],
    ['a timeout of the driver', new Error('Query read timeout')],
    ['too many connections', failed('53300')],
    ['a full disk', failed('53100')],
    ['a shutdown', failed('57P01')],
    ['a crash of another backend', failed('57P02')],
    ['a server that starts', failed('57P03')],
    ['statement_timeout', failed('57014')],
    ['transaction_timeout', failed('25P04')],
    ['idle_in_transaction_session_timeout', failed('25P03')],
    ['a server that became read-only', failed('25006')],
    ['a password in rotation', failed('28P01')],
    ['nothing at all', null],
  ])('%s: try again later', (_, error) => {
    expect(classify(error)).toBe('unavailable')
  })

  it.each([
    ['a serialization failure', '40001'],
    ['a deadlock', '40P01'],
  ])('%s: try again at once', (_, code) => {
    expect(classify(failed(code))).toBe('conflict')
  })

  it('lock_timeout: once the holder of the lock has ended', () => {
    expect(classify(failed('55P03'))).toBe('blocked')
  })

  it.each([
    ['a constraint', '23514'],
    ['an invalid byte sequence', '22021'],
    ['a missing table', '42P01'],
    ['a missing privilege', '42501'],
    ['an error that a trigger raised', 'P0001'],
  ])('%s: never again', (_, code) => {
    expect(classify(failed(code))).toBe('refused')
  })
})
