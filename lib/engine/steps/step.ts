/** Runs a step and records its result, or replays the recorded one. */

import { setMaxListeners } from 'node:events'
import { PawlError, StepInterruptedError, TerminalError } from '../../errors/index.ts'
import { backOff } from '../../store/database/backoff.ts'
import type { StepId } from '../../store/step-store.ts'
import { runInStep } from '../current-execution.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import type { StepCall } from '../journal/journal-reader.ts'
import { isUnkeepable } from '../limits.ts'
import type { ResolvedStep, StepContext } from './step-options.ts'
import { validateValue } from './validate-value.ts'

/** What a step needs to know of its execution. */
export interface StepExecution extends Execution {
  /**
   * Whether a step has failed for good if it returned a value that cannot be stored. It has taken effect, so it must
   * not run again; in a workflow, which is parked then, it does once a person has released the workflow.
   */
  readonly unkeepableIsFinal: boolean
}

/** Runs a step and records its result; if a result is recorded already, replays it. */
export async function runStep(
  execution: StepExecution,
  journal: Journal,
  call: StepCall,
  idempotencyKey: string,
  fn: (context: StepContext) => unknown,
  options: ResolvedStep,
): Promise<unknown> {
  const { schema, atMostOnce } = options
  if (call.entry?.completed) {
    return validateValue(call.name, schema, await journal.replay(call, call.entry), 'recorded')
  }
  if (call.entry) return recordInterruption(journal, call, options)
  if (atMostOnce) {
    const other = await journal.record(call, 'intent', 0)
    if (other?.completed) return validateValue(call.name, schema, journal.adopt(other), 'recorded')
    if (other) return recordInterruption(journal, call, options)
  }
  journal.throwIfSuperseded()
  const started = performance.now()
  let hasTakenEffect = false
  try {
    const returned = await runWithRetries(execution, call, idempotencyKey, fn, options)
    const output = await validateValue(call.name, schema, returned, 'returned')
    hasTakenEffect = true
    const other = await journal.record(call, { output }, performance.now() - started)
    return other ? validateValue(call.name, schema, journal.adopt(other), 'recorded') : output
  } catch (error) {
    const isLost = hasTakenEffect && isUnkeepable(error)
    if (isLost) journal.noteLostResult()
    if (!(error instanceof TerminalError) && !(isLost && execution.unkeepableIsFinal)) {
      journal.noteFailure(call, error)
      throw error
    }
    const other = await journal.record(call, { error }, performance.now() - started)
    if (other) return validateValue(call.name, schema, journal.adopt(other), 'recorded')
    throw error
  }
}

/**
 * Records that an at-most-once step was interrupted: its intent is recorded, but no result. The failure is
 * recorded so that a stalled process that finishes the step after all does not change what later attempts
 * see.
 */
async function recordInterruption(
  journal: Journal,
  call: StepCall,
  { schema }: ResolvedStep,
): Promise<unknown> {
  const error = new StepInterruptedError(call.name)
  const other = await journal.record(call, { error }, 0)
  if (other) return validateValue(call.name, schema, journal.adopt(other), 'recorded')
  throw error
}

/** Runs a function until it succeeds or its retries are used up. */
export async function runWithRetries(
  execution: Execution,
  step: StepId,
  idempotencyKey: string,
  fn: (context: StepContext) => unknown,
  { retry, timeoutMs }: Pick<ResolvedStep, 'retry' | 'timeoutMs'>,
): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await runOnce(execution, step, { idempotencyKey, attempt }, fn, timeoutMs)
    } catch (error) {
      const isFinal = error instanceof TerminalError || execution.abortSignal.aborted
      if (isFinal || attempt >= retry.attempts || !retry.retryIf(error)) throw error
    }
    await backOff(attempt, retry.backoff, execution.abortSignal)
  }
}

/** Runs a function in the context of its step, with a timeout. @throws PawlError `step-timed-out` */
async function runOnce(
  execution: Execution,
  step: StepId,
  context: Omit<StepContext, 'signal'>,
  fn: (context: StepContext) => unknown,
  timeoutMs: number | undefined,
): Promise<unknown> {
  const run = (signal: () => AbortSignal) =>
    runInStep(execution, step, () =>
      fn({
        ...context,
        get signal() {
          return signal()
        },
      }),
    )
  if (timeoutMs === undefined) return run(() => execution.abortSignal)
  // Not AbortSignal.any: an attempt of hours has many such steps, and its signal would remember each of them.
  const { abortSignal } = execution
  const controller = new AbortController()
  const abort = () => controller.abort(abortSignal.reason)
  if (abortSignal.aborted) abort()
  else abortSignal.addEventListener('abort', abort)
  setMaxListeners(0, abortSignal) // Many parallel steps are no leak to warn of.
  let timeout: NodeJS.Timeout | undefined
  const timedOut = new Promise<never>((_, reject) => {
    timeout = setTimeout(() => {
      const error = new PawlError(
        'step-timed-out',
        `Step "${step.name}" took longer than ${timeoutMs} ms.`,
        'Raise the timeout option, or retry the step; what it called may still have taken effect.',
      )
      controller.abort(error)
      reject(error)
    }, timeoutMs)
  })
  try {
    return await Promise.race([run(() => controller.signal), timedOut])
  } finally {
    clearTimeout(timeout)
    abortSignal.removeEventListener('abort', abort)
  }
}
