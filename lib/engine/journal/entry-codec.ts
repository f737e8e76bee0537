/** Encodes and encrypts journal entries for storage, and decrypts stored ones. */

import type { JournalEntry, StepId, StepKind } from '../../store/step-store.ts'
import { checkStepSize } from '../limits.ts'
import type { Encryptor } from '../values/encryptor.ts'
import { encodeError, encodeValue } from '../values/value-codec.ts'

/** What an entry records about a step. */
export type StepResult =
  /** The step succeeded. */
  | { output: unknown }
  /** The step failed for good. */
  | { error: Error }
  /** The step is about to start, and must run at most once. */
  | 'intent'

/** Converts the journal entries of one execution to and from their stored form. */
export class EntryCodec {
  readonly #encryptor: Encryptor
  readonly #executionId: string
  readonly #maxBytes: number

  /** @param maxBytes the largest encoded output of a step, in bytes */
  constructor(encryptor: Encryptor, executionId: string, maxBytes: number) {
    this.#encryptor = encryptor
    this.#executionId = executionId
    this.#maxBytes = maxBytes
  }

  /**
   * Encodes and encrypts a step's result.
   * @throws PawlError `value-unkeepable`, `limit-exceeded`
   */
  encode(
    call: StepId & { kind: StepKind },
    result: StepResult,
  ): { output: Buffer | null; error: Buffer | null } {
    if (result === 'intent') return { output: null, error: null }
    const encrypt = (bytes: Buffer | null, what: string) =>
      bytes && this.#encryptor.encrypt(bytes, this.#executionId, purposeOf(call, what))
    if ('output' in result) {
      const bytes = encodeValue(result.output)
      checkStepSize(call, bytes, this.#maxBytes)
      return { output: encrypt(bytes, 'step'), error: null }
    }
    return { output: null, error: encrypt(encodeError(result.error), 'error') }
  }

  /**
   * Decrypts an entry; its output and error stay encoded.
   * @throws PawlError `decryption-failed`
   */
  decrypt(entry: JournalEntry): JournalEntry {
    const decrypt = (bytes: Buffer | null, what: string) =>
      bytes && this.#encryptor.decrypt(bytes, this.#executionId, purposeOf(entry, what))
    return { ...entry, output: decrypt(entry.output, 'step'), error: decrypt(entry.error, 'error') }
  }
}

function purposeOf({ name, occurrence }: StepId, what: string): string {
  return `${what} ${occurrence} ${name}`
}
