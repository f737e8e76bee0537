import { DivergenceError } from '../../errors/index.ts'
import type { StepName } from '../../store/step-store.ts'
import type { Outcome } from '../../store/execution-store.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import { GIVING_UP } from '../journal/journal-reader.ts'
import { tryRepeatedly } from './step.ts'
import type { StepContext } from './step-options.ts'

/** Undoes a step, given what it gave. */
export type Undo = (output: never, context: StepContext) => unknown

/** A recorded step that can be undone. */
export interface Undoable extends StepName {
  undo: (context: StepContext) => unknown
}

/** The steps that can be undone. */
export class UndoLog {
  readonly #undoable: Undoable[] = []
  readonly #underWay = new Set<Promise<unknown>>()

  /** In the order in which they were recorded. */
  get undoable(): readonly Undoable[] {
    return this.#undoable
  }

  /** Notes a step with a compensation, once it has succeeded, and gives what it gives. */
  async note(
    { name, occurrence }: StepName,
    compensate: Undo | undefined,
    running: Promise<unknown>,
  ): Promise<unknown> {
    if (!compensate) return running
    this.#underWay.add(running)
    try {
      const output = await running
      const undo = (context: StepContext) => compensate(output as never, context)
      this.#undoable.push({ name, occurrence, undo })
      return output
    } finally {
      this.#underWay.delete(running)
    }
  }

  /** Resolves when none is under way. */
  async quiet(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay)
  }
}

/** What is recorded before the first compensation runs: from here on there is only one way. */
interface GivingUp {
  outcome: Outcome
  steps: StepName[]
}

const RETRY = {
  attempts: 3,
  backoff: { firstMs: 200, maxMs: 10_000 },
  retryIf: () => true,
}

/**
 * Undoes the recorded steps, the last one first. The answer is recorded before anything is undone, so
 * that an attempt that comes after a crash cannot change its mind: it undoes the rest and gives that
 * answer.
 *
 * @param undoable in the order in which the steps were recorded
 * @param keyOf the idempotency key of a compensation
 * @returns the answer to give: an earlier attempt's, if that gave up first
 * @throws what a compensation throws after three tries
 * @throws DivergenceError if a step that is to be undone was not asked for
 */
export async function compensate(
  execution: Execution,
  journal: Journal,
  undoable: readonly Undoable[],
  outcome: Outcome,
  keyOf: (step: StepName) => string,
): Promise<Outcome> {
  const decided = await decide(journal, undoable, outcome)
  for (const { name, occurrence } of decided.steps.toReversed()) {
    // Under the step's own name, where no use of it counts.
    const use = journal.useAt({ name, occurrence: -occurrence }, 'compensation')
    if (use.entry) continue
    const step = undoable.find((step) => step.name === name && step.occurrence === occurrence)
    if (!step) {
      throw new DivergenceError(
        `Step "${name}" is to be undone, and this attempt did not ask for it.`,
        'Bring back the code that runs the step with its compensate option.',
      )
    }
    const started = performance.now()
    await tryRepeatedly(execution, use, keyOf(use), step.undo, {
      retry: RETRY,
      timeoutMs: undefined,
    })
    await journal.record(use, { output: undefined }, performance.now() - started)
  }
  return decided.outcome
}

async function decide(
  journal: Journal,
  undoable: readonly Undoable[],
  outcome: Outcome,
): Promise<GivingUp> {
  const use = journal.useAt(GIVING_UP, 'giving-up')
  if (use.entry) return journal.adopt(use.entry) as GivingUp
  const steps = undoable.map(({ name, occurrence }) => ({ name, occurrence }))
  const decision: GivingUp = { outcome, steps }
  const other = await journal.record(use, { output: decision }, 0)
  return other ? (journal.adopt(other) as GivingUp) : decision
}
