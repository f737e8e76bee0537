import { PawlError } from '../errors/index.ts'
import type { StepKind } from '../store/step-store.ts'

/** How much an execution may record. */
export interface JournalLimits {
  /** How large what a step gives may be, in bytes as it is encoded. */
  step: number
  /** How many entries an execution may have. */
  steps: number
}

/**
 * Something is larger than the app allows. Trying again does not make it smaller, so a workflow that
 * throws this is parked at once.
 */
export class LimitError extends PawlError {
  constructor(message: string, hint: string) {
    super('limit-exceeded', message, hint)
  }
}

/** Whatever else is recorded has limits of its own, or must be recorded for things to end well. */
const LIMITED = new Set<StepKind>(['step', 'transaction'])

/** @throws LimitError */
export function checkStepSize(
  { name, kind }: { name: string; kind: StepKind },
  bytes: Buffer | null,
  maxBytes: number,
): void {
  if (!bytes || bytes.length <= maxBytes || !LIMITED.has(kind)) return
  throw new LimitError(
    `The ${kind} "${name}" gave ${bytes.length} bytes, and at most ${maxBytes} are allowed; it is not recorded.`,
    'Keep what is large in a table or a file of the app and return its name; or raise limits.step of Pawl.',
  )
}

/** @throws LimitError */
export function checkStepCount(name: string, count: number, max: number): void {
  if (count < max) return
  throw new LimitError(
    `"${name}" would be entry ${count + 1} of its execution, and at most ${max} are allowed; it has not begun.`,
    'Do more in each step, or start other workflows for parts of it; or raise limits.steps of Pawl.',
  )
}
