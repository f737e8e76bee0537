import type { Entry, StepKind, StepName } from '../../store/step-store.ts'
import { checkStepSize } from '../limits.ts'
import type { Sealer } from '../values/encryptor.ts'
import { encodeError, encodeValue } from '../values/value-codec.ts'

/** What is to be recorded of a step. */
export type Result =
  | { output: unknown }
  /** It failed for good. */
  | { error: Error }
  /** It is about to begin, and must run at most once. */
  | 'intent'

/** Entries of one execution's journal as they are stored: encoded, and encrypted if there are keys. */
export class EntryCodec {
  readonly #sealer: Sealer
  readonly #executionId: string
  readonly #maxBytes: number

  /** @param maxBytes how large what a step gives may be */
  constructor(sealer: Sealer, executionId: string, maxBytes: number) {
    this.#sealer = sealer
    this.#executionId = executionId
    this.#maxBytes = maxBytes
  }

  /** @throws PawlError `value-unkeepable`, `limit-exceeded` */
  encode(
    use: StepName & { kind: StepKind },
    result: Result,
  ): { output: Buffer | null; error: Buffer | null } {
    if (result === 'intent') return { output: null, error: null }
    const seal = (bytes: Buffer | null, what: string) =>
      bytes && this.#sealer.seal(bytes, this.#executionId, purposeOf(use, what))
    if ('output' in result) {
      const bytes = encodeValue(result.output)
      checkStepSize(use, bytes, this.#maxBytes)
      return { output: seal(bytes, 'step'), error: null }
    }
    return { output: null, error: seal(encodeError(result.error), 'error') }
  }

  /** @throws PawlError `decryption-failed` */
  open(entry: Entry): Entry {
    const open = (bytes: Buffer | null, what: string) =>
      bytes && this.#sealer.open(bytes, this.#executionId, purposeOf(entry, what))
    return { ...entry, output: open(entry.output, 'step'), error: open(entry.error, 'error') }
  }
}

function purposeOf({ name, occurrence }: StepName, what: string): string {
  return `${what} ${occurrence} ${name}`
}
