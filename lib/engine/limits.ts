/** Checks a step against the app's limits on the size and the number of recorded steps. */

import { PawlError } from '../errors/index.ts'
import type { StepKind } from '../store/step-store.ts'

/** Limits on what one execution may record. */
export interface JournalLimits {
  /** The largest output of one step, in bytes after encoding. */
  step: number
  /** The largest number of entries in one execution's journal. */
  steps: number
}

/**
 * Reports that a step exceeds a limit. Another try would exceed it too, so a workflow that throws this
 * error is parked at once.
 */
export class LimitError extends PawlError {
  constructor(message: string, hint: string) {
    super('limit-exceeded', message, hint)
  }
}

/**
 * Whether a value could not be stored because it is too large, or would not come back equal: it cannot be stored
 * in another attempt either.
 */
export function isUnkeepable(error: unknown): error is PawlError {
  const isUnserializable = error instanceof PawlError && error.code === 'value-unkeepable'
  return isUnserializable || error instanceof LimitError
}

/** The kinds of entries that `limits.step` applies to; the others have limits of their own or must be recorded. */
const LIMITED_KINDS = new Set<StepKind>(['step', 'transaction'])

/** @throws LimitError */
export function checkStepSize(
  { name, kind }: { name: string; kind: StepKind },
  bytes: Buffer | null,
  maxBytes: number,
): void {
  if (!bytes || bytes.length <= maxBytes || !LIMITED_KINDS.has(kind)) return
  throw new LimitError(
    `The ${kind} "${name}" returned ${bytes.length} bytes, but at most ${maxBytes} are allowed; they are not recorded.`,
    'Store large data in a table or a file of the app and return a reference to it; or raise limits.step of Pawl.',
  )
}

/**
 * @param count how many entries the execution has before this step
 * @throws LimitError
 */
export function checkStepCount(name: string, count: number, max: number): void {
  if (count < max) return
  throw new LimitError(
    `"${name}" would be entry ${count + 1} of its execution, but at most ${max} are allowed; it was not started.`,
    'Do more in each step, or move parts of the work to other workflows; or raise limits.steps of Pawl.',
  )
}
