/** Runs a transaction step, whose journal entry commits together with the app's writes, or replays it. */

import { PawlError, TerminalError } from '../../errors/index.ts'
import { backOff } from '../../store/database/backoff.ts'
import { isConflict, type TransactionHost } from '../../store/database/transaction-host.ts'
import type { StepStore } from '../../store/step-store.ts'
import { runInStep } from '../current-execution.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import type { StepCall } from '../journal/journal-reader.ts'
import type { resolveTransaction } from './step-options.ts'
import { validateValue } from './validate-value.ts'

const MAX_TRIES = 5

/** The pause between tries, so that transactions that conflicted do not conflict again. */
const BACKOFF = { firstMs: 10, maxMs: 200 }

/** Thrown to roll back a transaction whose step another attempt has recorded. */
class AlreadyRecorded extends Error {}

/** Runs a transaction step and records its output in the same commit; if an output is recorded already, replays it. */
export async function runTransaction(
  execution: Execution,
  journal: Journal,
  store: StepStore,
  call: StepCall,
  fn: (tx: never) => unknown,
  { schema, isolation, on }: ReturnType<typeof resolveTransaction>,
): Promise<unknown> {
  const { name } = call
  if (call.entry)
    return validateValue(name, schema, await journal.replay(call, call.entry), 'recorded')
  const host = (on ?? store.host) as TransactionHost<never>
  const started = performance.now()
  for (let tries = 1; ; tries++) {
    journal.throwIfSuperseded()
    let recorded = false
    try {
      return await journal.recordInTransaction(call, (record) =>
        store.transaction(
          host,
          async (tx, run) => {
            const returned = await runInStep(execution, call, () => fn(tx))
            const output = await validateValue(name, schema, returned, 'returned')
            recorded = await record(run, output, performance.now() - started)
            if (!recorded) throw new AlreadyRecorded()
            return output
          },
          isolation,
        ),
      )
    } catch (error) {
      // Read the journal after any error. If another attempt was first, the app's own unique constraint may
      // fail before the journal's. And the commit may have succeeded with its reply lost.
      const isConflictError = isConflict(error)
      const entry = await journal.rereadEntry(call, recorded && !isConflictError).catch((cause) => {
        throw new PawlError(
          'store-unavailable',
          `It is unknown whether transaction "${name}" has committed: ${(error as Error).message}.`,
          'Let the handler fail: the next attempt finds the answer in the journal and continues from there.',
          cause,
        )
      })
      if (entry) return validateValue(name, schema, journal.adopt(entry), 'recorded')
      if (error instanceof AlreadyRecorded) throw journal.stopAttempt()
      if (error instanceof TerminalError) {
        const other = await journal.record(call, { error }, performance.now() - started)
        if (other) return validateValue(name, schema, journal.adopt(other), 'recorded')
      }
      if (tries >= MAX_TRIES || !isConflictError) {
        if (!(error instanceof TerminalError)) journal.noteFailure(call, error)
        throw error
      }
    }
    await backOff(tries, BACKOFF, execution.abortSignal)
  }
}
