/** Encrypts stored bytes with AES-256-GCM, and decrypts them. */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { PawlError } from '../../errors/index.ts'

/** An AES-256-GCM key and the id by which encrypted bytes refer to it. */
export interface EncryptionKey {
  /** 1 to 255 bytes. */
  id: string
  /** 32 bytes. */
  key: Uint8Array
}

/** The first byte of encrypted bytes. No unencrypted value of Pawl begins with it. */
const ENCRYPTED_MARKER = 2
const NONCE_BYTES = 12
const TAG_BYTES = 16

/**
 * Encrypts bytes for storage, if there are keys: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce.
 * The execution's id and the purpose are authenticated as additional data, so bytes that were copied to
 * another row or column do not decrypt. Layout: a byte 2, the length of the key's id, the id, the nonce,
 * the tag, the ciphertext.
 */
export class Encryptor {
  readonly #keys: readonly EncryptionKey[]

  /** @param keys the first one encrypts, all of them decrypt; without keys, bytes are stored unencrypted */
  constructor(keys: readonly EncryptionKey[]) {
    this.#keys = keys
  }

  /** Whether there is a key to encrypt with. */
  get isActive(): boolean {
    return this.#keys.length > 0
  }

  /**
   * Encrypts with the first key; without keys, returns the bytes unchanged.
   * @param purpose what the bytes are, such as `body`; decrypting requires the same purpose
   */
  encrypt(bytes: Buffer, executionId: string, purpose: string): Buffer {
    const [current] = this.#keys
    if (!current) return bytes
    const id = Buffer.from(current.id)
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', current.key, nonce)
    cipher.setAAD(Buffer.from(`${executionId} ${purpose}`))
    const ciphertext = Buffer.concat([cipher.update(bytes), cipher.final()])
    return Buffer.concat([
      Buffer.of(ENCRYPTED_MARKER, id.length),
      id,
      nonce,
      cipher.getAuthTag(),
      ciphertext,
    ])
  }

  /**
   * Decrypts bytes; returns bytes that were stored unencrypted (before there was a key) unchanged.
   * @throws PawlError `decryption-failed`
   */
  decrypt(bytes: Buffer, executionId: string, purpose: string): Buffer {
    if (!isEncrypted(bytes)) return bytes
    return this.decryptCiphertext(bytes, executionId, purpose)
  }

  /**
   * Decrypts bytes that are known to be encrypted. For values whose unencrypted form may begin with any
   * byte, so that the first byte does not tell.
   * @throws PawlError `decryption-failed`
   */
  decryptCiphertext(bytes: Buffer, executionId: string, purpose: string): Buffer {
    const nonceStart = 2 + (bytes[1] as number)
    const id = bytes.toString('utf8', 2, nonceStart)
    const key = this.#keys.find((key) => key.id === id)
    if (!key) {
      throw decryptionFailed(
        `Execution ${executionId} is encrypted with the key "${id}", which is not among encryptionKeys.`,
      )
    }
    const tagStart = nonceStart + NONCE_BYTES
    try {
      const nonce = bytes.subarray(nonceStart, tagStart)
      const decipher = createDecipheriv('aes-256-gcm', key.key, nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(Buffer.from(`${executionId} ${purpose}`))
      decipher.setAuthTag(bytes.subarray(tagStart, tagStart + TAG_BYTES))
      const ciphertext = bytes.subarray(tagStart + TAG_BYTES)
      return Buffer.concat([decipher.update(ciphertext), decipher.final()])
    } catch (error) {
      throw decryptionFailed(
        `The ${purpose} of execution ${executionId} cannot be decrypted with the key "${id}".`,
        error,
      )
    }
  }
}

/** Whether the bytes are encrypted. Only for values that never begin with the marker when unencrypted. */
export function isEncrypted(bytes: Buffer): boolean {
  return bytes[0] === ENCRYPTED_MARKER
}

function decryptionFailed(message: string, cause?: unknown): PawlError {
  return new PawlError(
    'decryption-failed',
    message,
    'Add the key that it was stored with to encryptionKeys; nothing was changed.',
    cause,
  )
}
