/** The functions `step` and `transaction` of 'pawl', which use the execution that the calling code runs in. */

import { randomUUID } from 'node:crypto'
import { PawlError } from '../errors/index.ts'
import { runAppTransaction } from '../store/database/app-transaction.ts'
import { retryConflicts } from '../store/database/retry-conflicts.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { currentExecution } from './current-execution.ts'
import type { RunStep, RunTransaction } from './execution.ts'
import { parseTransactionArguments, type TransactionArguments } from './running-execution.ts'
import { startedInstances } from './started-instances.ts'
import type { StepContext, StepOptions } from './steps/step-options.ts'

/**
 * Calls `execution.step` of the execution that the calling code runs in, so that a service three calls below
 * the handler needs no parameter. Outside an execution, runs `fn` once and records nothing.
 *
 * ```ts
 * import { step } from 'pawl'
 * const charge = await step('charge card', ({ idempotencyKey }) => …)
 * ```
 */
export const step: RunStep = async <T>(
  name: string,
  fn: (context: StepContext) => unknown,
  options?: StepOptions<T>,
): Promise<T> => {
  const execution = currentExecution()
  if (execution) return execution.step(name, fn, options as StepOptions<unknown>) as Promise<T>
  const { signal } = new AbortController()
  return (await fn({ idempotencyKey: randomUUID(), attempt: 1, signal })) as T
}

/**
 * Calls `execution.transaction` of the execution that the calling code runs in. Outside an execution, runs
 * `fn` in a plain transaction of the `on` option, else of the pool of this process's Pawl.
 *
 * @throws PawlError `no-execution` if there is no execution, no `on`, and not exactly one started Pawl
 */
export const transaction = (async <T>(
  name: string,
  ...rest: TransactionArguments<T, unknown>
): Promise<T> => {
  const execution = currentExecution()
  if (execution) return execution.transaction(name, ...(rest as [never, never?])) as Promise<T>
  const { fn, options } = parseTransactionArguments(...rest)
  const host = options?.on ?? defaultHost(name)
  return retryConflicts(() =>
    runAppTransaction(host, async (tx) => fn(tx as never), options?.isolation),
  ) as Promise<T>
}) as RunTransaction

/** Returns the transaction host of this process's only started Pawl. */
function defaultHost(name: string): TransactionHost<unknown> {
  const [pawl, another] = startedInstances
  if (pawl && !another) return pawl.host
  throw new PawlError(
    'no-execution',
    `Transaction "${name}" was started outside an execution, so it is unclear which database to use.`,
    'Start exactly one Pawl in this process, or give the on option.',
  )
}
