import { LimitError } from '../engine/limits.ts'
import { decodeValue, encodeError, encodeValue } from '../engine/values/value-codec.ts'
import { CancelledError, WorkflowFailedError } from '../errors/index.ts'
import type { Outcome } from '../store/execution-store.ts'

/** A workflow's outcome is stored as a response's is, with these in place of an HTTP status. */
const RESULT = 200
const CANCELLED = 499
const FAILED = 500

const NO_HEADERS = Buffer.from('[]')

/** @throws PawlError `value-unkeepable` */
export function resultOutcome(value: unknown): Outcome {
  return { status: RESULT, headers: NO_HEADERS, body: encodeValue(value) }
}

export function errorOutcome(error: Error): Outcome {
  const status = error instanceof CancelledError ? CANCELLED : FAILED
  return { status, headers: NO_HEADERS, body: encodeError(error) }
}

/** How a workflow has ended. */
export type Ended =
  | { status: 'done'; result: unknown }
  | { status: 'failed' | 'cancelled'; error: Error }

/** @param outcome decrypted */
export function endedOf({ status, body }: Outcome): Ended {
  const value = decodeValue(body)
  if (status === RESULT) return { status: 'done', result: value }
  return { status: status === CANCELLED ? 'cancelled' : 'failed', error: value as Error }
}

/**
 * What whoever waits for a workflow gets.
 * @throws WorkflowFailedError, CancelledError
 */
export function resultOf(name: string, outcome: Outcome): unknown {
  const ended = endedOf(outcome)
  if (ended.status === 'done') return ended.result
  if (ended.status === 'cancelled') throw new CancelledError(ended.error.message)
  throw new WorkflowFailedError(name, ended.error)
}

/** @throws PawlError `limit-exceeded` */
export function checkSize(bytes: Buffer | null, maxBytes: number, what: string): void {
  if (!bytes || bytes.length <= maxBytes) return
  throw new LimitError(
    `${what} takes ${bytes.length} bytes, and at most ${maxBytes} are allowed.`,
    'Keep what is large in a table or a file of the app and pass its name; or raise the limits option of Pawl.',
  )
}
