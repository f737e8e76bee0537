/** The error for a step with `atMostOnce` that an earlier attempt began and did not finish. */

import { PawlError } from './pawl-error.ts'

/**
 * A step with `atMostOnce` began in an earlier attempt, which ended before the step's result was
 * recorded, so its effects are unknown. Pawl does not run the step again. Catch this error, ask the
 * system that the step called whether it took effect, and continue accordingly.
 */
export class StepInterruptedError extends PawlError {
  override readonly name = 'StepInterruptedError'
  /** The name of the step. */
  readonly step: string

  constructor(step: string) {
    super(
      'step-interrupted',
      `Step "${step}" began in an earlier attempt and was interrupted; it may or may not have taken effect.`,
      'It runs at most once, so it is not run again: ask the system that it called whether it took effect.',
    )
    this.step = step
  }
}
