import { randomUUID } from 'node:crypto'
import { PawlError } from '../errors/index.ts'
import { retryConflicts } from '../store/database/retry-conflicts.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { currentExecution } from './current-execution.ts'
import type { RunStep, RunTransaction } from './execution.ts'
import { splitTransaction, type TransactionArguments } from './running-execution.ts'
import { startedInstances } from './started-instances.ts'
import type { StepContext, StepOptions } from './steps/step-options.ts'

/**
 * `execution.step` of the execution that the running code belongs to, so that a service three calls
 * below the handler needs no parameter. Outside an execution it just runs `fn`, once.
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
 * `execution.transaction` of the execution that the running code belongs to. Outside an execution it is
 * a plain transaction of what the `on` option names, else of the pool of this process's Pawl.
 *
 * @throws PawlError `no-execution` if there is no execution, no `on`, and not exactly one started Pawl
 */
export const transaction = (async <T>(
  name: string,
  ...rest: TransactionArguments<T, unknown>
): Promise<T> => {
  const execution = currentExecution()
  if (execution) return execution.transaction(name, ...(rest as [never, never?])) as Promise<T>
  const { fn, options } = splitTransaction(...rest)
  const host = options?.on ?? onlyHost(name)
  return retryConflicts(() =>
    host.transaction(async (tx) => fn(tx as never), options?.isolation),
  ) as Promise<T>
}) as RunTransaction

function onlyHost(name: string): TransactionHost<unknown> {
  const [pawl, another] = startedInstances
  if (pawl && !another) return pawl.host
  throw new PawlError(
    'no-execution',
    `Transaction "${name}" runs outside an execution, and it is not clear in which database.`,
    'Start one Pawl in this process, or give the on option.',
  )
}
