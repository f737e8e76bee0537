import { AsyncLocalStorage } from 'node:async_hooks'
import type { StepName } from '../store/step-store.ts'
import type { Execution } from './execution.ts'

/** How many deterministic values a piece of code has drawn. */
export interface Draws {
  randoms: number
  uuids: number
}

/** A step that is running. Each try of it draws the same values. */
export interface RunningStep extends StepName, Draws {}

interface Context {
  execution: Execution
  /** The step that is running; null between steps. */
  step: RunningStep | null
}

const contexts = new AsyncLocalStorage<Context>()

/**
 * The execution that the running code belongs to, found by its async context; undefined outside of one.
 * A library that calls back out of its own async context loses it: bind such callbacks with
 * `AsyncResource.bind`, or pass the execution on.
 */
export function currentExecution(): Execution | undefined {
  return contexts.getStore()?.execution
}

/** Runs code as part of an execution. */
export function runAs<T>(execution: Execution, work: () => T): T {
  return contexts.run({ execution, step: null }, work)
}

/** Runs code as a step of an execution. */
export function runAsStep<T>(
  execution: Execution,
  { name, occurrence }: StepName,
  work: () => T,
): T {
  return contexts.run({ execution, step: { name, occurrence, randoms: 0, uuids: 0 } }, work)
}

/** The step of this execution that the running code belongs to. */
export function currentStep(execution: Execution): RunningStep | null {
  const context = contexts.getStore()
  return context?.execution === execution ? context.step : null
}
