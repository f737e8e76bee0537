import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { decryptOutcome, encryptOutcome } from '../../../lib/engine/outcome-encryption.ts'
import { Encryptor } from '../../../lib/engine/values/encryptor.ts'

const a = { id: 'a', key: randomBytes(32) }
const b = { id: 'b', key: randomBytes(32) }
const secret = Buffer.from('the card number')
const id = '00000000-0000-8000-8000-000000000000'

function thrownBy(work: () => unknown): Error & { code?: string; cause?: unknown } {
  try {
    work()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was thrown')
}

describe('Encryptor', () => {
  it('decrypts what it encrypted, and the same bytes never encrypt to the same', () => {
    const encryptor = new Encryptor([a])
    const encrypted = [1, 2].map(() => encryptor.encrypt(secret, id, 'body'))
    expect(encrypted[0]).not.toEqual(encrypted[1])
    for (const bytes of encrypted) {
      expect(bytes.includes(secret)).toBe(false)
      expect(encryptor.decrypt(bytes, id, 'body')).toEqual(secret)
    }
    expect(encryptor.decrypt(encryptor.encrypt(Buffer.alloc(0), id, 'body'), id, 'body')).toEqual(
      Buffer.alloc(0),
    )
  })

  it('without keys bytes stay as they are, and bytes from before there were keys still decrypt', () => {
    expect(new Encryptor([]).encrypt(secret, id, 'body')).toBe(secret)
    expect(new Encryptor([a]).decrypt(secret, id, 'body')).toEqual(secret)
  })

  it('rotation: the first key encrypts, all of them decrypt', () => {
    const old = new Encryptor([a]).encrypt(secret, id, 'body')
    const rotated = new Encryptor([b, a])
    expect(rotated.decrypt(old, id, 'body')).toEqual(secret)
    const fresh = rotated.encrypt(secret, id, 'body')
    expect(new Encryptor([b]).decrypt(fresh, id, 'body')).toEqual(secret)
    expect(() => new Encryptor([a]).decrypt(fresh, id, 'body')).toThrow(/with the key "b"/)
  })

  it('bytes that were moved to another row, or another column, do not decrypt', () => {
    const encryptor = new Encryptor([a])
    const bytes = encryptor.encrypt(secret, id, 'step 1 charge')
    for (const [row, purpose] of [
      [id, 'step 2 charge'],
      [id, 'error 1 charge'],
      [id, 'body'],
      [id.replace('8', '9'), 'step 1 charge'],
    ] as const) {
      expect(thrownBy(() => encryptor.decrypt(bytes, row, purpose)).code).toBe('decryption-failed')
    }
  })

  it('whatever was damaged or cut off is a clear error', () => {
    const encryptor = new Encryptor([a])
    const bytes = encryptor.encrypt(secret, id, 'body')
    for (let length = 1; length < bytes.length; length++) {
      const cut = bytes.subarray(0, length)
      expect(thrownBy(() => encryptor.decrypt(cut, id, 'body')).code, `${length}`).toBe(
        'decryption-failed',
      )
    }
    for (let at = 1; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] as number) ^ 1
      expect(thrownBy(() => encryptor.decrypt(damaged, id, 'body')).code, `${at}`).toBe(
        'decryption-failed',
      )
    }
  })

  it('no error tells a key, or what was encrypted', () => {
    const bytes = new Encryptor([a]).encrypt(secret, id, 'body')
    const wrong = [new Encryptor([]), new Encryptor([b]), new Encryptor([{ id: 'a', key: b.key }])]
    for (const encryptor of wrong) {
      const error = thrownBy(() => encryptor.decrypt(bytes, id, 'body'))
      const told = [error.message, error.stack, JSON.stringify(error), String(error.cause)].join()
      for (const key of [a.key, b.key]) {
        expect(told).not.toContain(key.toString('base64'))
        expect(told).not.toContain(key.toString('hex'))
      }
      expect(told).not.toContain(secret.toString())
    }
  })

  it('a body in the clear may begin as encrypted bytes do', () => {
    const outcome = { status: 200, headers: Buffer.from('[]'), body: Buffer.of(2, 1, 97, 0) }
    const encryptor = new Encryptor([a])
    expect(decryptOutcome(encryptor, id, outcome)).toEqual(outcome)
    expect(decryptOutcome(encryptor, id, encryptOutcome(encryptor, id, outcome))).toEqual(outcome)
    const empty = { ...outcome, status: 204, body: Buffer.alloc(0) }
    expect(decryptOutcome(encryptor, id, encryptOutcome(encryptor, id, empty))).toEqual(empty)
    const notKept = { ...outcome, body: null }
    expect(decryptOutcome(encryptor, id, encryptOutcome(encryptor, id, notKept))).toEqual(notKept)
  })
})
