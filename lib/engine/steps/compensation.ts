/** Runs the compensations of recorded steps when an execution fails (the saga pattern). */

import { DivergenceError } from '../../errors/index.ts'
import type { Outcome } from '../../store/execution-store.ts'
import type { StepId } from '../../store/step-store.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import { GIVING_UP } from '../journal/journal-reader.ts'
import { runWithRetries } from './step.ts'
import type { StepContext } from './step-options.ts'

/** A step's `compensate` option: undoes the step, given its output. */
export type Compensation = (output: never, context: StepContext) => unknown

/** A recorded step that has a compensation. */
export interface CompensableStep extends StepId {
  undo: (context: StepContext) => unknown
}

/** Collects the recorded steps that have a compensation. */
export class CompensationLog {
  readonly #compensableSteps: CompensableStep[] = []
  readonly #running = new Set<Promise<unknown>>()

  /** The steps in the order in which they were recorded. */
  get compensableSteps(): readonly CompensableStep[] {
    return this.#compensableSteps
  }

  /** Adds a step that has a compensation once it has succeeded; resolves or rejects as the step does. */
  async track(
    { name, occurrence }: StepId,
    compensate: Compensation | undefined,
    running: Promise<unknown>,
  ): Promise<unknown> {
    if (!compensate) return running
    this.#running.add(running)
    try {
      const output = await running
      const undo = (context: StepContext) => compensate(output as never, context)
      this.#compensableSteps.push({ name, occurrence, undo })
      return output
    } finally {
      this.#running.delete(running)
    }
  }

  /** Resolves when no step with a compensation is running. */
  async whenIdle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
  }
}

/** The output of the entry that is recorded before the first compensation runs. Stored as it is. */
interface GivingUpDecision {
  outcome: Outcome
  steps: StepId[]
}

const RETRY = {
  attempts: 3,
  backoff: { firstMs: 200, maxMs: 10_000 },
  retryIf: () => true,
}

/**
 * Runs the compensations of the recorded steps, the last step's first. The answer is recorded before the
 * first one runs, so that an attempt after a crash cannot decide otherwise: it runs the remaining
 * compensations and gives the recorded answer.
 *
 * @param compensableSteps in the order in which the steps were recorded
 * @param idempotencyKeyOf returns the idempotency key of a compensation
 * @returns the answer to give: that of an earlier attempt if it gave up first, else `outcome`
 * @throws what a compensation throws after three tries
 * @throws DivergenceError if this attempt has not called a step that must be compensated
 */
export async function runCompensations(
  execution: Execution,
  journal: Journal,
  compensableSteps: readonly CompensableStep[],
  outcome: Outcome,
  idempotencyKeyOf: (step: StepId) => string,
): Promise<Outcome> {
  const decided = await decide(journal, compensableSteps, outcome)
  for (const { name, occurrence } of decided.steps.toReversed()) {
    // Recorded under the step's own name, with a negative occurrence, which no call of the step has.
    const call = journal.callAt({ name, occurrence: -occurrence }, 'compensation')
    if (call.entry) continue
    const step = compensableSteps.find(
      (step) => step.name === name && step.occurrence === occurrence,
    )
    if (!step) {
      throw new DivergenceError(
        `Step "${name}" is to be undone, but this attempt did not call it.`,
        'Bring back the code that runs the step with its compensate option.',
      )
    }
    const started = performance.now()
    await runWithRetries(execution, call, idempotencyKeyOf(call), step.undo, {
      retry: RETRY,
      timeoutMs: undefined,
    })
    await journal.record(call, { output: undefined }, performance.now() - started)
  }
  return decided.outcome
}

/** Records the answer and the steps to compensate, or adopts the recorded decision of an earlier attempt. */
async function decide(
  journal: Journal,
  compensableSteps: readonly CompensableStep[],
  outcome: Outcome,
): Promise<GivingUpDecision> {
  const call = journal.callAt(GIVING_UP, 'giving-up')
  if (call.entry) return journal.adopt(call.entry) as GivingUpDecision
  const steps = compensableSteps.map(({ name, occurrence }) => ({ name, occurrence }))
  const decision: GivingUpDecision = { outcome, steps }
  const other = await journal.record(call, { output: decision }, 0)
  return other ? (journal.adopt(other) as GivingUpDecision) : decision
}
