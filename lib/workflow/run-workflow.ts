/** Runs one attempt of a workflow: calls its code, and records the outcome, schedules a retry or parks it. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import type { Attempt } from '../engine/attempt.ts'
import { runInExecution } from '../engine/current-execution.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { isUnkeepable } from '../engine/limits.ts'
import { withTimeout } from '../engine/retry/with-timeout.ts'
import {
  CancelledError,
  DivergenceError,
  PawlError,
  TerminalError,
  WorkflowTimeoutError,
} from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import { delayAfter } from '../store/database/backoff.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { LeasedExecution } from '../store/wakeup-store.ts'
import { parseWithSchema, type WorkflowDefinition } from './definition.ts'
import { checkSize, errorOutcome, resultOutcome } from './workflow-outcome.ts'

/** How long unawaited branches of code that has returned may take to reach their recorded steps, in ms. */
const SKIPPED_STEPS_GRACE_MS = 1000

/** What {@link runWorkflow} needs. */
export interface RunDependencies {
  attempt: Attempt
  journal: Journal
  definition: WorkflowDefinition
  input: unknown
  leased: Pick<LeasedExecution, 'cancelling' | 'deadline' | 'maxAttempts' | 'attempt'>
  /** Resolves to the encoded input of the next life, when the code has asked for one. */
  continuation: Promise<Buffer>
  /** Begins the next life. */
  continueAs: (input: Buffer) => Promise<'continued' | 'superseded' | 'cancelling'>
  /** Cancels the executions that this one has started. */
  cancelChildren: () => Promise<void>
  maxOutputBytes: number
  logger: Logger
}

/** Runs one attempt of a workflow's code. Resolves when the result of the attempt is recorded in the database. */
export async function runWorkflow(dependencies: RunDependencies): Promise<void> {
  const { attempt, journal, definition, leased } = dependencies
  const timer = startTimeout(dependencies)
  attempt.hasBegun = true
  if (leased.cancelling) attempt.halt(new CancelledError())
  try {
    // Cancelled or timed out before the code first ran: there is nothing to compensate.
    if (journal.haltReason && journal.isEmpty)
      return await recordOutcome(dependencies, errorOutcome(journal.haltReason))
    const code = definition.code as (execution: unknown, input: unknown) => unknown
    const running = Promise.resolve(
      runOutsideRequests(() =>
        runInExecution(attempt.execution, async () => code(attempt.execution, dependencies.input)),
      ),
    )
    // The code's promise may never settle: the execution was suspended, or another attempt has replaced this.
    const ended = await Promise.race([
      running.then((value) => ({ value })),
      dependencies.continuation.then((next) => ({ next })),
      attempt.settled.then(() => null),
    ])
    running.catch(() => {})
    if (!ended) return
    await checkNoStepSkipped(dependencies)
    if ('next' in ended) return await beginNextLife(dependencies, ended.next)
    await recordOutcome(dependencies, await outcomeOf(dependencies, ended.value))
  } catch (error) {
    if (!attempt.isSettled) await handleError(dependencies, error)
  } finally {
    clearTimeout(timer)
  }
}

/** Ends this life of the execution, unless an earlier attempt has recorded how the execution ends. */
async function beginNextLife(dependencies: RunDependencies, input: Buffer): Promise<void> {
  const { attempt, continueAs } = dependencies
  if (attempt.isGivingUp) return recordOutcome(dependencies, resultOutcome(undefined))
  const result = await continueAs(input)
  if (result === 'continued') return attempt.markSuspended()
  if (result === 'superseded') return attempt.markSuperseded()
  const error = new CancelledError()
  attempt.halt(error)
  throw error
}

/**
 * Checks, after the code has ended, that it has run every step that earlier attempts recorded. A branch that
 * the code does not await (the loser of a race) may still be on its way to its steps, so this waits a little.
 * @throws DivergenceError
 */
async function checkNoStepSkipped({
  attempt,
  journal,
  definition,
}: RunDependencies): Promise<void> {
  if (attempt.isGivingUp) return // An earlier attempt has recorded how the execution ends.
  const deadline = performance.now() + SKIPPED_STEPS_GRACE_MS
  while (journal.isReplaying && performance.now() < deadline) {
    await withTimeout(10, attempt.settled)
    if (attempt.isSettled) return
  }
  const skipped = journal.skippedSteps
  if (skipped.length === 0) return
  throw new SkippedStepsError(
    skipped,
    `Workflow "${definition.name}" has ended without running steps that its journal contains: ${skipped.map((name) => `"${name}"`).join(', ')}.`,
    'Restore the code that the workflow was started with (see version and execution.patched) and release it; released under the same code, it ends without these steps.',
  )
}

/** The code has ended without running some of the recorded steps. */
class SkippedStepsError extends DivergenceError {
  readonly steps: string[]

  constructor(steps: string[], message: string, hint: string) {
    super(message, hint)
    this.steps = steps
  }
}

/** Validates and encodes the code's return value. @throws PawlError `value-invalid`, `limit-exceeded` */
async function outcomeOf(dependencies: RunDependencies, returned: unknown): Promise<Outcome> {
  const { name, output } = dependencies.definition
  const result = await parseWithSchema(
    'value-invalid',
    `The result of workflow "${name}"`,
    output,
    returned,
  )
  const outcome = resultOutcome(result)
  checkSize(outcome.body, dependencies.maxOutputBytes, `The result of workflow "${name}"`)
  return outcome
}

/** Records how the execution ended; a failure only after the compensations have run. */
async function recordOutcome(dependencies: RunDependencies, outcome: Outcome): Promise<void> {
  const { attempt, definition } = dependencies
  // If an earlier attempt has recorded that it gives up, the execution ends with the failure recorded then.
  const isFailure = outcome.status >= 400
  const final = isFailure || attempt.isGivingUp ? await attempt.giveUp(outcome) : outcome
  await attempt.complete(final, definition.retentionMs, final.status >= 400)
}

/** The error that the execution must end with; undefined if it may be retried. */
function finalError(error: Error, { attempt, journal }: RunDependencies): Error | undefined {
  // Once an attempt has given up, the execution fails, even if the code now throws something else.
  const isDeadlock = error instanceof PawlError && error.code === 'deadlock'
  if (error instanceof TerminalError || isDeadlock || attempt.isGivingUp) return error
  // A halted execution (cancelled or timed out) ends with the reason of the halt, whatever the code throws.
  return error instanceof DivergenceError ? undefined : journal.haltReason
}

/** Whether every further attempt would fail with the same error until a person changes something. */
function isRetryPointless(error: Error): boolean {
  const isDeadlock = error instanceof PawlError && error.code === 'object-deadlock'
  return error instanceof DivergenceError || isUnkeepable(error) || isDeadlock
}

/** Decides what an error that the code has thrown leads to: the final failure, a retry, or parking. */
async function handleError(dependencies: RunDependencies, thrown: unknown): Promise<void> {
  const { attempt, journal, definition, leased, logger } = dependencies
  const error = thrown instanceof Error ? thrown : new Error(String(thrown), { cause: thrown })
  // This process is stopping or the attempt is superseded: an error that follows from that is no failure.
  if (journal.hasStopped) return void (await attempt.release('released'))
  const final = finalError(error, dependencies)
  if (final) {
    try {
      await checkNoStepSkipped(dependencies)
      // The cancellation did not reach executions that this one was just starting: cancel these too.
      if (journal.haltReason instanceof CancelledError) await dependencies.cancelChildren()
      return await recordOutcome(dependencies, errorOutcome(final))
    } catch (compensationError) {
      if (compensationError instanceof DivergenceError) return park(dependencies, compensationError)
      logger.warn('a compensation failed; another attempt will run it again', {
        error: compensationError,
        execution: attempt.execution.id,
      })
      return releaseForRetry(dependencies, compensationError as Error)
    }
  }
  // Also where the code has caught the error and throws another: each attempt would repeat the step's effect.
  if (isRetryPointless(error) || journal.hasLostResult) return park(dependencies, error)
  const fields = { execution: attempt.execution.id, workflow: definition.name, error }
  if (leased.maxAttempts <= leased.attempt && !journal.hasStoreFailure) {
    logger.warn('a workflow has used up its attempts and is parked; see pawl release', fields)
  } else logger.debug('a workflow failed and will be retried', fields)
  await releaseForRetry(dependencies, error)
}

/** Parks the execution: it is not retried until `pawl release`. */
async function park(
  { attempt, journal, definition, logger }: RunDependencies,
  error: Error,
): Promise<void> {
  // Steps that this attempt has recorded itself are not part of what the correct code has to run.
  const skipped = error instanceof SkippedStepsError ? error.steps : []
  if (error instanceof DivergenceError) await journal.recordDivergence({ skipped }).catch(() => {})
  const fields = { execution: attempt.execution.id, workflow: definition.name, error }
  logger.warn(
    error instanceof DivergenceError
      ? "a workflow's code does not match its journal, so it is parked; nothing was changed"
      : 'a workflow is parked because no further attempt can succeed; correct it, and see pawl release',
    fields,
  )
  await attempt.release('parked', { error })
}

/** Gives the execution back for a later attempt, or parks it if its attempts are used up. */
async function releaseForRetry(
  { attempt, journal, definition, leased }: RunDependencies,
  error: Error,
): Promise<void> {
  const { attempts, backoff, maxBackoff } = definition.retry
  const attemptsLeft = leased.maxAttempts - leased.attempt
  if (attemptsLeft <= 0 && !journal.hasStoreFailure)
    return void (await attempt.release('parked', { error }))
  const failures = Math.max(1, attempts - attemptsLeft)
  const delay = delayAfter(failures, { firstMs: backoff, maxMs: maxBackoff })
  await attempt.release('released', {
    error,
    // Half of the delay is fixed and half is random: many failures at one moment are not retried all at once,
    // and none is retried immediately.
    delayMs: Math.round(Math.min(maxBackoff, backoff * 2 ** (failures - 1)) / 2 + delay / 2),
  })
}

/**
 * Halts the attempt when the workflow's `timeout` is over. No timer is set for a deadline beyond the range of
 * setTimeout (24 days): the attempt that runs when it is reached is halted at once.
 */
function startTimeout({
  attempt,
  journal,
  definition,
  leased,
}: RunDependencies): NodeJS.Timeout | undefined {
  const { deadline } = leased
  if (deadline === null) return undefined
  const { name, timeoutMs } = definition
  const halt = () => attempt.halt(new WorkflowTimeoutError(name, timeoutMs ?? 0))
  const ms = Number((BigInt(deadline) - journal.databaseTime) / 1000n)
  if (ms <= 0) return void halt()
  return ms < 2 ** 31 ? setTimeout(halt, ms).unref() : undefined
}
