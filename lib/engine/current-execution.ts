/** Finds the execution and the step that the running code belongs to, by its async context. */

import { AsyncLocalStorage } from 'node:async_hooks'
import type { StepId } from '../store/step-store.ts'
import type { Execution } from './execution.ts'

/** How many values a handler or a step has taken from `random()` and `uuid()`. */
export interface DrawCounts {
  randoms: number
  uuids: number
}

/** A running step. Its counts begin at 0 in each try, so that each try gets the same random values. */
export interface RunningStep extends StepId, DrawCounts {}

interface Context {
  execution: Execution
  /** The running step; null outside of steps. */
  step: RunningStep | null
}

const contexts = new AsyncLocalStorage<Context>()

/**
 * Returns the execution that the calling code runs in, found by its async context; undefined outside an
 * execution. Callbacks that a library makes from its own async context do not find it: bind them with
 * `AsyncResource.bind`, or pass the execution to them.
 */
export function currentExecution(): Execution | undefined {
  return contexts.getStore()?.execution
}

/** Runs a function so that `currentExecution` finds this execution in it. */
export function runInExecution<T>(execution: Execution, work: () => T): T {
  return contexts.run({ execution, step: null }, work)
}

/** Runs a function so that `currentStep` finds this step in it. */
export function runInStep<T>(execution: Execution, { name, occurrence }: StepId, work: () => T): T {
  return contexts.run({ execution, step: { name, occurrence, randoms: 0, uuids: 0 } }, work)
}

/** Returns the step of this execution that the calling code runs in; null outside of its steps. */
export function currentStep(execution: Execution): RunningStep | null {
  const context = contexts.getStore()
  return context?.execution === execution ? context.step : null
}
