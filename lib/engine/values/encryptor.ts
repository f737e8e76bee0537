import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { PawlError } from '../../errors/index.ts'

/** An AES-256-GCM key and the id under which stored bytes name it. */
export interface EncryptionKey {
  /** 1 to 255 bytes. */
  id: string
  /** 32 bytes. */
  key: Uint8Array
}

/** The first byte of what is encrypted. No value of Pawl's begins with it in the clear. */
const SEALED = 2
const IV_BYTES = 12
const TAG_BYTES = 16

/**
 * Encrypts what is stored, if there are keys: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce.
 * The execution's id and the purpose are authenticated with it, so that bytes that were moved to another
 * row do not open. Layout: a byte 2, the length of the key's id, the id, the nonce, the tag, the rest.
 */
export class Sealer {
  readonly #keys: readonly EncryptionKey[]

  /** @param keys the first encrypts; all of them decrypt. None: bytes stay as they are */
  constructor(keys: readonly EncryptionKey[]) {
    this.#keys = keys
  }

  get isActive(): boolean {
    return this.#keys.length > 0
  }

  /** @param purpose what the bytes are, such as `body` */
  seal(bytes: Buffer, executionId: string, purpose: string): Buffer {
    const [current] = this.#keys
    if (!current) return bytes
    const id = Buffer.from(current.id)
    const nonce = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', current.key, nonce)
    cipher.setAAD(Buffer.from(`${executionId} ${purpose}`))
    const sealed = Buffer.concat([cipher.update(bytes), cipher.final()])
    return Buffer.concat([Buffer.of(SEALED, id.length), id, nonce, cipher.getAuthTag(), sealed])
  }

  /**
   * @param bytes sealed, or in the clear as they were stored before there was a key
   * @throws PawlError `decryption-failed`
   */
  open(bytes: Buffer, executionId: string, purpose: string): Buffer {
    return bytes[0] === SEALED ? this.openSealed(bytes, executionId, purpose) : bytes
  }

  /** The same for bytes that are known to be sealed and may begin with anything in the clear. */
  openSealed(bytes: Buffer, executionId: string, purpose: string): Buffer {
    const start = 2 + (bytes[1] as number)
    const id = bytes.toString('utf8', 2, start)
    const key = this.#keys.find((key) => key.id === id)
    if (!key) {
      throw failed(
        `Execution ${executionId} is encrypted with the key "${id}", which is not among encryptionKeys.`,
      )
    }
    const tag = start + IV_BYTES
    try {
      const nonce = bytes.subarray(start, tag)
      const decipher = createDecipheriv('aes-256-gcm', key.key, nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(Buffer.from(`${executionId} ${purpose}`))
      decipher.setAuthTag(bytes.subarray(tag, tag + TAG_BYTES))
      return Buffer.concat([decipher.update(bytes.subarray(tag + TAG_BYTES)), decipher.final()])
    } catch (error) {
      throw failed(
        `The ${purpose} of execution ${executionId} does not open with the key "${id}".`,
        error,
      )
    }
  }
}

/** Whether these bytes are sealed; of bytes that never begin so in the clear. */
export function isSealed(bytes: Buffer): boolean {
  return bytes[0] === SEALED
}

function failed(message: string, cause?: unknown): PawlError {
  return new PawlError(
    'decryption-failed',
    message,
    'Give the key it was stored with in encryptionKeys; nothing was changed.',
    cause,
  )
}
