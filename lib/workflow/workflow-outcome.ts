/** Encodes how a workflow ended as an outcome for the store, and decodes it again. */

import { LimitError } from '../engine/limits.ts'
import { decodeValue, encodeError, encodeValue } from '../engine/values/value-codec.ts'
import { CancelledError, WorkflowFailedError } from '../errors/index.ts'
import type { Outcome } from '../store/execution-store.ts'

/** The outcome of a workflow is stored like a response; these values take the place of the HTTP status. */
const RESULT = 200
const CANCELLED = 499
const FAILED = 500

const NO_HEADERS = Buffer.from('[]')

/** Encodes a workflow's return value. @throws PawlError `value-unkeepable` */
export function resultOutcome(value: unknown): Outcome {
  return { status: RESULT, headers: NO_HEADERS, body: encodeValue(value) }
}

/** Encodes the error that a workflow ended with. */
export function errorOutcome(error: Error): Outcome {
  const status = error instanceof CancelledError ? CANCELLED : FAILED
  return { status, headers: NO_HEADERS, body: encodeError(error) }
}

/** How a workflow ended, with its result or error. */
export type DecodedOutcome =
  | { status: 'done'; result: unknown }
  | { status: 'failed' | 'cancelled'; error: Error }

/** Decodes a workflow's outcome, which must have been decrypted. */
export function decodeOutcome({ status, body }: Outcome): DecodedOutcome {
  const value = decodeValue(body)
  if (status === RESULT) return { status: 'done', result: value }
  return { status: status === CANCELLED ? 'cancelled' : 'failed', error: value as Error }
}

/**
 * Returns the result in a workflow's outcome, or throws its error.
 * @throws WorkflowFailedError, CancelledError
 */
export function unwrapOutcome(name: string, outcome: Outcome): unknown {
  const decoded = decodeOutcome(outcome)
  if (decoded.status === 'done') return decoded.result
  if (decoded.status === 'cancelled') throw new CancelledError(decoded.error.message)
  throw new WorkflowFailedError(name, decoded.error)
}

/**
 * Checks an encoded value against a size limit.
 * @param what the value's description, for the message
 * @throws PawlError `limit-exceeded`
 */
export function checkSize(bytes: Buffer | null, maxBytes: number, what: string): void {
  if (!bytes || bytes.length <= maxBytes) return
  throw new LimitError(
    `${what} takes ${bytes.length} bytes, and at most ${maxBytes} are allowed.`,
    'Store large data in a table or file of the app and pass a reference to it, or raise the limits option of Pawl.',
  )
}
