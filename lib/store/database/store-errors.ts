import { PawlError } from '../../errors/index.ts'
import { classify } from './database.ts'

/** Bytes as a driver gives them, as a Buffer. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function toBytes(value: unknown): Buffer | null {
  return value === null ? null : toBuffer(value as Uint8Array)
}

/** A driver's error as a PawlError that says whether trying again makes sense. */
export async function translate<T>(result: Promise<T>): Promise<T> {
  try {
    return await result
  } catch (error) {
    const detail = (error as Error).message
    if (classify(error) === 'refused') {
      throw new PawlError(
        'store-refused',
        `PostgreSQL refused a statement of Pawl: ${detail}.`,
        'Check that the schema is intact (npx pawl migrate) and that the role may use it.',
        error,
      )
    }
    throw new PawlError(
      'store-unavailable',
      `PostgreSQL cannot be reached: ${detail}.`,
      'Pawl goes on by itself as soon as it can; a client should retry with the same key.',
      error,
    )
  }
}
