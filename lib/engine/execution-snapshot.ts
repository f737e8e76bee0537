/** Reads the state of an execution, and waits until the execution reaches a given state. */

import type { ChangeListener } from '../store/change-listener.ts'
import type { ExecutionStore, Outcome } from '../store/execution-store.ts'
import { decryptOutcome } from './outcome-encryption.ts'
import { retryWhileUnavailableFor } from './retry/retry-while-unavailable.ts'
import type { Encryptor } from './values/encryptor.ts'

/** The state of an execution at one moment. */
export interface ExecutionSnapshot {
  /** The status column; `interrupted` if it is `running` and the owner is dead. */
  status: string
  attempt: number
  /** The decrypted outcome; null until the execution has ended. */
  outcome: Outcome | null
}

/** The execution to read. */
export interface ExecutionTarget {
  id: string
  /** If given, an expired execution, or another one that has taken its key since, counts as deleted. */
  incarnation?: string
}

export interface SnapshotDependencies {
  store: Pick<ExecutionStore, 'read' | 'markAwaited'>
  changeListener: ChangeListener
  encryptor: Encryptor
  /** The longest that a read waits for an unavailable database, in ms. */
  storeTimeoutMs: number
  /** Ends that wait early once the process stops. */
  isStopped?: () => boolean
}

/**
 * Reads the state of an execution; null if it is deleted.
 * @throws PawlError `store-unavailable`, `store-refused`, `decryption-failed`
 */
export async function readExecution(
  dependencies: Omit<SnapshotDependencies, 'changeListener'>,
  { id, incarnation }: ExecutionTarget,
): Promise<ExecutionSnapshot | null> {
  const { store, encryptor, storeTimeoutMs, isStopped } = dependencies
  const found = await retryWhileUnavailableFor(storeTimeoutMs, () => store.read(id), isStopped)
  if (!found) return null
  if (incarnation !== undefined && (found.incarnation !== incarnation || found.expired)) return null
  const { status, ownerAlive, attempt, outcome } = found
  return {
    status: status === 'running' && !ownerAlive ? 'interrupted' : status,
    attempt,
    outcome: outcome && decryptOutcome(encryptor, id, outcome),
  }
}

/**
 * Waits until `isWanted` returns true for the execution's state, the timeout has passed, or the signal fires.
 * The state is read at once, and again whenever a change is notified and at intervals.
 * @returns the last state that was read; null if the execution is deleted
 * @throws PawlError as {@link readExecution}
 */
export async function waitForExecution(
  dependencies: SnapshotDependencies,
  target: ExecutionTarget,
  isWanted: (snapshot: ExecutionSnapshot) => boolean,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<ExecutionSnapshot | null> {
  const { store, changeListener, storeTimeoutMs, isStopped } = dependencies
  let snapshot = await readExecution(dependencies, target)
  const isOver = () => !snapshot || isWanted(snapshot)
  if (isOver() || timeoutMs <= 0 || signal?.aborted) return snapshot
  const mark = () => store.markAwaited(target.id)
  await retryWhileUnavailableFor(storeTimeoutMs, mark, isStopped)
  const read = async (): Promise<true | null> => {
    snapshot = await readExecution(dependencies, target)
    return isOver() ? true : null
  }
  await changeListener.waitFor(target.id, read, timeoutMs, signal)
  return snapshot
}
