import { PawlError, StepInterruptedError, TerminalError } from '../../errors/index.ts'
import type { StepName } from '../../store/step-store.ts'
import { runAsStep } from '../current-execution.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import type { Use } from '../journal/journal-reader.ts'
import { backOff } from '../retry/backoff.ts'
import { fit } from './validate-value.ts'
import type { ResolvedStep, StepContext } from './step-options.ts'

/** Runs a step, or replays it. */
export async function runStep(
  execution: Execution,
  journal: Journal,
  use: Use,
  idempotencyKey: string,
  fn: (context: StepContext) => unknown,
  options: ResolvedStep,
): Promise<unknown> {
  const { schema, atMostOnce } = options
  if (use.entry?.completed) {
    return fit(use.name, schema, await journal.replay(use, use.entry), 'recorded')
  }
  if (use.entry) return interrupted(journal, use, options)
  if (atMostOnce) {
    const other = await journal.record(use, 'intent', 0)
    if (other?.completed) return fit(use.name, schema, journal.adopt(other), 'recorded')
    if (other) return interrupted(journal, use, options)
  }
  journal.check()
  const started = performance.now()
  try {
    const returned = await tryRepeatedly(execution, use, idempotencyKey, fn, options)
    const output = await fit(use.name, schema, returned, 'returned')
    const other = await journal.record(use, { output }, performance.now() - started)
    return other ? fit(use.name, schema, journal.adopt(other), 'recorded') : output
  } catch (error) {
    if (!(error instanceof TerminalError)) {
      journal.failed(use, error)
      throw error
    }
    const other = await journal.record(use, { error }, performance.now() - started)
    if (other) return fit(use.name, schema, journal.adopt(other), 'recorded')
    throw error
  }
}

/**
 * The intent is there and no result. That is recorded as the step's failure, so that a process that
 * wakes up and finishes the step after all does not change what later attempts see.
 */
async function interrupted(journal: Journal, use: Use, { schema }: ResolvedStep): Promise<unknown> {
  const error = new StepInterruptedError(use.name)
  const other = await journal.record(use, { error }, 0)
  if (other) return fit(use.name, schema, journal.adopt(other), 'recorded')
  throw error
}

/** Runs a function until it succeeds, as often as `retry` says. */
export async function tryRepeatedly(
  execution: Execution,
  step: StepName,
  idempotencyKey: string,
  fn: (context: StepContext) => unknown,
  { retry, timeoutMs }: Pick<ResolvedStep, 'retry' | 'timeoutMs'>,
): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryOnce(execution, step, { idempotencyKey, attempt }, fn, timeoutMs)
    } catch (error) {
      const hopeless = error instanceof TerminalError || execution.abortSignal.aborted
      if (hopeless || attempt >= retry.attempts || !retry.retryIf(error)) throw error
    }
    await backOff(attempt, retry.backoff, execution.abortSignal)
  }
}

async function tryOnce(
  execution: Execution,
  step: StepName,
  context: Omit<StepContext, 'signal'>,
  fn: (context: StepContext) => unknown,
  timeoutMs: number | undefined,
): Promise<unknown> {
  const run = (signal: () => AbortSignal) =>
    runAsStep(execution, step, () =>
      fn({
        ...context,
        get signal() {
          return signal()
        },
      }),
    )
  if (timeoutMs === undefined) return run(() => execution.abortSignal)
  const timer = new AbortController()
  const error = new PawlError(
    'step-timed-out',
    `Step "${step.name}" took longer than ${timeoutMs} ms.`,
    'Give it more time, or retry it; what it called may still have taken effect.',
  )
  const timeout = setTimeout(() => timer.abort(error), timeoutMs)
  try {
    const timedOut = new Promise<never>((_, reject) => {
      timer.signal.addEventListener('abort', () => reject(error))
    })
    const signal = AbortSignal.any([timer.signal, execution.abortSignal])
    return await Promise.race([run(() => signal), timedOut])
  } finally {
    clearTimeout(timeout)
  }
}
