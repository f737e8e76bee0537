/** The stores and services that the workflow code needs from a started Pawl. */

import type { Engine } from '../engine/engine.ts'
import type { Encryptor } from '../engine/values/encryptor.ts'
import type { Logger } from '../options/logger.ts'
import type { ChangeListener } from '../store/change-listener.ts'
import type { ExecutionReader } from '../store/execution-reader.ts'
import type { ExecutionStore } from '../store/execution-store.ts'
import type { WakeupStore } from '../store/wakeup-store.ts'
import type { WorkflowStores } from '../store/workflow-stores.ts'

/** What Pawl passes to the workflow service when it starts. */
export interface WorkflowDependencies extends WorkflowStores {
  engine: Engine
  store: ExecutionStore
  reader: ExecutionReader
  /** Tells the other processes which handlers this process runs, by the name of their queue. */
  announceQueues: (handlers: Record<string, readonly string[]>) => Promise<void>
  wakeups: WakeupStore
  changeListener: ChangeListener
  encryptor: Encryptor
  storeTimeoutMs: number
  /** How many executions this process runs at a time; 0: it only starts them. */
  concurrency: number
  limits: { input: number; output: number }
  logger: Logger
}
