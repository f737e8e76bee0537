import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { openOutcome, sealOutcome } from '../../../lib/engine/outcome-encryption.ts'
import { Sealer } from '../../../lib/engine/values/encryptor.ts'

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

describe('Sealer', () => {
  it('opens what it sealed, and the same bytes never look the same', () => {
    const sealer = new Sealer([a])
    const sealed = [1, 2].map(() => sealer.seal(secret, id, 'body'))
    expect(sealed[0]).not.toEqual(sealed[1])
    for (const bytes of sealed) {
      expect(bytes.includes(secret)).toBe(false)
      expect(sealer.open(bytes, id, 'body')).toEqual(secret)
    }
    expect(sealer.open(sealer.seal(Buffer.alloc(0), id, 'body'), id, 'body')).toEqual(
      Buffer.alloc(0),
    )
  })

  it('without keys bytes stay as they are, and bytes from before there were keys still open', () => {
    expect(new Sealer([]).seal(secret, id, 'body')).toBe(secret)
    expect(new Sealer([a]).open(secret, id, 'body')).toEqual(secret)
  })

  it('rotation: the first key encrypts, all of them decrypt', () => {
    const old = new Sealer([a]).seal(secret, id, 'body')
    const rotated = new Sealer([b, a])
    expect(rotated.open(old, id, 'body')).toEqual(secret)
    const fresh = rotated.seal(secret, id, 'body')
    expect(new Sealer([b]).open(fresh, id, 'body')).toEqual(secret)
    expect(() => new Sealer([a]).open(fresh, id, 'body')).toThrow(/with the key "b"/)
  })

  it('what was moved to another row, or another place, does not open', () => {
    const sealer = new Sealer([a])
    const bytes = sealer.seal(secret, id, 'step 1 charge')
    for (const [row, purpose] of [
      [id, 'step 2 charge'],
      [id, 'error 1 charge'],
      [id, 'body'],
      [id.replace('8', '9'), 'step 1 charge'],
    ] as const) {
      expect(thrownBy(() => sealer.open(bytes, row, purpose)).code).toBe('decryption-failed')
    }
  })

  it('whatever was damaged or cut off is a clear error', () => {
    const sealer = new Sealer([a])
    const bytes = sealer.seal(secret, id, 'body')
    for (let length = 1; length < bytes.length; length++) {
      const cut = bytes.subarray(0, length)
      expect(thrownBy(() => sealer.open(cut, id, 'body')).code, `${length}`).toBe(
        'decryption-failed',
      )
    }
    for (let at = 1; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] as number) ^ 1
      expect(thrownBy(() => sealer.open(damaged, id, 'body')).code, `${at}`).toBe(
        'decryption-failed',
      )
    }
  })

  it('no error tells a key, or what was encrypted', () => {
    const bytes = new Sealer([a]).seal(secret, id, 'body')
    const wrong = [new Sealer([]), new Sealer([b]), new Sealer([{ id: 'a', key: b.key }])]
    for (const sealer of wrong) {
      const error = thrownBy(() => sealer.open(bytes, id, 'body'))
      const told = [error.message, error.stack, JSON.stringify(error), String(error.cause)].join()
      for (const key of [a.key, b.key]) {
        expect(told).not.toContain(key.toString('base64'))
        expect(told).not.toContain(key.toString('hex'))
      }
      expect(told).not.toContain(secret.toString())
    }
  })

  it('a body in the clear may begin as sealed bytes do', () => {
    const outcome = { status: 200, headers: Buffer.from('[]'), body: Buffer.of(2, 1, 97, 0) }
    const sealer = new Sealer([a])
    expect(openOutcome(sealer, id, outcome)).toEqual(outcome)
    expect(openOutcome(sealer, id, sealOutcome(sealer, id, outcome))).toEqual(outcome)
    const empty = { ...outcome, status: 204, body: Buffer.alloc(0) }
    expect(openOutcome(sealer, id, sealOutcome(sealer, id, empty))).toEqual(empty)
    const notKept = { ...outcome, body: null }
    expect(openOutcome(sealer, id, sealOutcome(sealer, id, notKept))).toEqual(notKept)
  })
})
