import { PawlError, TerminalError } from '../../errors/index.ts'
import { isConflict, type TransactionHost } from '../../store/database/transaction-host.ts'
import type { StepStore } from '../../store/step-store.ts'
import { runAsStep } from '../current-execution.ts'
import type { Execution } from '../execution.ts'
import type { Journal } from '../journal/journal.ts'
import type { Use } from '../journal/journal-reader.ts'
import { backOff } from '../retry/backoff.ts'
import { fit } from './validate-value.ts'
import type { resolveTransaction } from './step-options.ts'

const MAX_TRIES = 5

/** Between tries, so that those that met do not meet again. */
const BACKOFF = { firstMs: 10, maxMs: 200 }

/** Thrown to roll back a transaction whose step is recorded already. */
class Lost extends Error {}

/** Runs a transaction step, or replays it. */
export async function runTransaction(
  execution: Execution,
  journal: Journal,
  store: StepStore,
  use: Use,
  fn: (tx: never) => unknown,
  { schema, isolation, on }: ReturnType<typeof resolveTransaction>,
): Promise<unknown> {
  const { name } = use
  if (use.entry) return fit(name, schema, await journal.replay(use, use.entry), 'recorded')
  const host = (on ?? store.host) as TransactionHost<never>
  const started = performance.now()
  for (let tries = 1; ; tries++) {
    journal.check()
    let recorded = false
    try {
      return await journal.recordIn(use, (record) =>
        store.transaction(
          host,
          async (tx, run) => {
            const returned = await runAsStep(execution, use, () => fn(tx))
            const output = await fit(name, schema, returned, 'returned')
            recorded = await record(run, output, performance.now() - started)
            if (!recorded) throw new Lost()
            return output
          },
          isolation,
        ),
      )
    } catch (error) {
      // Whatever it was, the journal knows: the app's own constraint may speak before the journal's when
      // another attempt was first, and a commit whose reply was lost is a commit.
      const isLost = isConflict(error)
      const entry = await journal.lookAgain(use, recorded && !isLost).catch((cause) => {
        throw new PawlError(
          'store-unavailable',
          `It is not known whether transaction "${name}" has committed: ${(error as Error).message}.`,
          'Let the handler fail: the next attempt reads the journal and goes on accordingly.',
          cause,
        )
      })
      if (entry) return fit(name, schema, journal.adopt(entry), 'recorded')
      if (error instanceof Lost) throw journal.over()
      if (error instanceof TerminalError) {
        const other = await journal.record(use, { error }, performance.now() - started)
        if (other) return fit(name, schema, journal.adopt(other), 'recorded')
      }
      if (tries >= MAX_TRIES || !isLost) {
        if (!(error instanceof TerminalError)) journal.failed(use, error)
        throw error
      }
    }
    await backOff(tries, BACKOFF, execution.abortSignal)
  }
}
