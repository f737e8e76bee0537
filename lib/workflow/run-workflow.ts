import type { Attempt } from '../engine/attempt.ts'
import { runAs } from '../engine/current-execution.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { LimitError } from '../engine/limits.ts'
import { pauseAfter } from '../engine/retry/backoff.ts'
import { within } from '../engine/retry/with-timeout.ts'
import {
  CancelledError,
  DivergenceError,
  PawlError,
  TerminalError,
  WorkflowTimeoutError,
} from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { Taken } from '../store/wakeup-store.ts'
import { type Definition, fits } from './definition.ts'
import { checkSize, errorOutcome, resultOutcome } from './workflow-outcome.ts'

/** How long what runs beside the code that has ended may take to ask for what is recorded of it. */
const PATIENCE_MS = 1000

/** What running a workflow needs. */
export interface RunParts {
  attempt: Attempt
  journal: Journal
  definition: Definition
  input: unknown
  taken: Pick<Taken, 'cancelling' | 'deadline' | 'maxAttempts' | 'attempt'>
  /** Asks what it has started to end. */
  cancelChildren: () => Promise<void>
  maxOutputBytes: number
  logger: Logger
}

/** Runs one attempt at a workflow's code. Resolves when the database knows what came of it. */
export async function runWorkflow(parts: RunParts): Promise<void> {
  const { attempt, journal, definition, taken } = parts
  const timer = startClock(parts)
  if (taken.cancelling) attempt.halt(new CancelledError())
  try {
    // Cancelled before it began: there is nothing to undo.
    if (journal.halted && journal.isEmpty) return await end(parts, errorOutcome(journal.halted))
    const code = definition.code as (execution: unknown, input: unknown) => unknown
    const running = Promise.resolve(
      runAs(attempt.execution, async () => code(attempt.execution, parts.input)),
    )
    // Its code may never end: it sleeps, or somebody else goes on with it.
    const ended = await Promise.race([running.then(value), attempt.settled.then(() => null)])
    running.catch(() => {})
    if (!ended) return
    await checkAsked(parts)
    await end(parts, await outcomeOf(parts, ended.value))
  } catch (error) {
    if (!attempt.isSettled) await fail(parts, error)
  } finally {
    clearTimeout(timer)
  }
}

const value = (value: unknown) => ({ value })

/**
 * The code has ended: it must have asked for all that earlier attempts recorded. A branch that nobody waits
 * for (the loser of a race) may be on its way to it.
 * @throws DivergenceError
 */
async function checkAsked({ attempt, journal, definition }: RunParts): Promise<void> {
  if (attempt.isGivingUp) return // What it ends with is decided.
  const until = performance.now() + PATIENCE_MS
  while (journal.isReplaying && performance.now() < until) {
    await within(10, attempt.settled)
    if (attempt.isSettled) return
  }
  const { skipped } = journal
  if (skipped.length === 0) return
  throw new Skipped(
    skipped,
    `Workflow "${definition.name}" has ended without asking for what is recorded of it: ${skipped.map((name) => `"${name}"`).join(', ')}.`,
    'Bring back the code it was started with (see version and execution.patched) and release it; released under the same code, it ends without them.',
  )
}

class Skipped extends DivergenceError {
  readonly steps: string[]

  constructor(steps: string[], message: string, hint: string) {
    super(message, hint)
    this.steps = steps
  }
}

async function outcomeOf(parts: RunParts, returned: unknown): Promise<Outcome> {
  const { name, output } = parts.definition
  const result = await fits('value-invalid', `The result of workflow "${name}"`, output, returned)
  const outcome = resultOutcome(result)
  checkSize(outcome.body, parts.maxOutputBytes, `The result of workflow "${name}"`)
  return outcome
}

async function end(parts: RunParts, outcome: Outcome): Promise<void> {
  const { attempt, definition } = parts
  // An earlier attempt may have given up: then that is what it ends with.
  const isFailure = outcome.status >= 400
  const final = isFailure || attempt.isGivingUp ? await attempt.giveUp(outcome) : outcome
  await attempt.complete(final, definition.retentionMs, final.status >= 400)
}

/** What it ends with, if there is only one way to end. */
function finalError(error: Error, { attempt, journal }: RunParts): Error | undefined {
  // Once an attempt has given up, whatever the code makes of it.
  if (error instanceof TerminalError || attempt.isGivingUp) return error
  // Told to end, it ends, whatever its code makes of that.
  return error instanceof DivergenceError ? undefined : journal.halted
}

/** Whether no other attempt can fare better, until somebody changes something. */
function isHopeless(error: Error): boolean {
  const waitsForItself = error instanceof PawlError && error.code === 'object-deadlock'
  return error instanceof DivergenceError || error instanceof LimitError || waitsForItself
}

async function fail(parts: RunParts, thrown: unknown): Promise<void> {
  const { attempt, journal, definition, taken, logger } = parts
  const error = thrown instanceof Error ? thrown : new Error(String(thrown), { cause: thrown })
  // Told to stop: what it throws then says nothing of the execution.
  if (journal.hasStopped) return void (await attempt.release('released'))
  const final = finalError(error, parts)
  if (final) {
    try {
      await checkAsked(parts)
      // What it was starting when it was asked to end has not been asked.
      if (journal.halted instanceof CancelledError) await parts.cancelChildren()
      return await end(parts, errorOutcome(final))
    } catch (undoing) {
      if (undoing instanceof DivergenceError) return park(parts, undoing)
      logger.warn('a compensation failed; another attempt goes on with it', {
        error: undoing,
        execution: attempt.execution.id,
      })
      return retry(parts, undoing as Error)
    }
  }
  if (isHopeless(error)) return park(parts, error)
  const fields = { execution: attempt.execution.id, workflow: definition.name, error }
  if (taken.maxAttempts <= taken.attempt) {
    logger.warn('a workflow has failed as often as it may and is parked; see pawl release', fields)
  } else logger.debug('a workflow failed and is tried again', fields)
  await retry(parts, error)
}

/** No other attempt can fare better, until somebody changes something. */
async function park(
  { attempt, journal, definition, logger }: RunParts,
  error: Error,
): Promise<void> {
  // What it has recorded itself is no part of what the right code has to ask for.
  const skipped = error instanceof Skipped ? error.steps : []
  if (error instanceof DivergenceError) await journal.diverged({ skipped }).catch(() => {})
  const fields = { execution: attempt.execution.id, workflow: definition.name, error }
  logger.warn(
    error instanceof DivergenceError
      ? 'a workflow does not fit its journal and is parked; nothing was changed'
      : 'no attempt can bring a workflow further, and it is parked; correct it, and see pawl release',
    fields,
  )
  await attempt.release('parked', { error })
}

async function retry({ attempt, definition, taken }: RunParts, error: Error): Promise<void> {
  const { attempts, backoff, maxBackoff } = definition.retry
  const left = taken.maxAttempts - taken.attempt
  if (left <= 0) return void (await attempt.release('parked', { error }))
  const failures = Math.max(1, attempts - left)
  const pause = pauseAfter(failures, { firstMs: backoff, maxMs: maxBackoff })
  await attempt.release('released', {
    error,
    // Half of it is certain: a fleet of failures is spread, and none comes at once.
    delayMs: Math.round(Math.min(maxBackoff, backoff * 2 ** (failures - 1)) / 2 + pause / 2),
  })
}

/** Ends it when its time is up. A time far off ends it when it is looked at then. */
function startClock({ attempt, journal, definition, taken }: RunParts): NodeJS.Timeout | undefined {
  const { deadline } = taken
  if (deadline === null) return undefined
  const { name, timeoutMs } = definition
  const halt = () => attempt.halt(new WorkflowTimeoutError(name, timeoutMs ?? 0))
  const ms = Number((BigInt(deadline) - journal.time) / 1000n)
  if (ms <= 0) return void halt()
  return ms < 2 ** 31 ? setTimeout(halt, ms).unref() : undefined
}
