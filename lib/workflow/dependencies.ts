import type { Engine } from '../engine/engine.ts'
import type { Sealer } from '../engine/values/encryptor.ts'
import type { Logger } from '../options/logger.ts'
import type { QueueStore } from '../store/queue-store.ts'
import type { ScheduleStore } from '../store/schedule-store.ts'
import type { StateStore } from '../store/state-store.ts'
import type { Store } from '../store/execution-store.ts'
import type { WakeupStore } from '../store/wakeup-store.ts'
import type { Watch } from '../store/change-listener.ts'
import type { WorkflowStore } from '../store/workflow-store.ts'

/** What workflows need of the process they run in. */
export interface WorkflowParts {
  engine: Engine
  store: Store
  workflows: WorkflowStore
  queues: QueueStore
  schedules: ScheduleStore
  state: StateStore
  wakeups: WakeupStore
  watch: Watch
  sealer: Sealer
  storeTimeoutMs: number
  /** How many run here at a time; 0: this process only starts them. */
  concurrency: number
  limits: { input: number; output: number }
  logger: Logger
}
