/** Opens the stores that only workflows, objects, queues and schedules use. */

import type { Database } from './database/database.ts'
import { QueueStore } from './queue-store.ts'
import { ScheduleStore } from './schedule-store.ts'
import { StateStore } from './state-store.ts'
import { WaitStore } from './wait-store.ts'
import { WorkflowStore } from './workflow-store.ts'

/** The stores that the workflow code needs in addition to those of requests. */
export interface WorkflowStores {
  workflows: WorkflowStore
  queues: QueueStore
  waits: WaitStore
  schedules: ScheduleStore
  state: StateStore
}

/**
 * @param schema the schema's name, as given by the user
 * @param owner the id of this process
 * @param leaseMs how long after a start workers check whether the owner has died, in ms
 */
export function openWorkflowStores(
  db: Database,
  schema: string,
  owner: string,
  leaseMs: number,
): WorkflowStores {
  return {
    workflows: new WorkflowStore(db, schema, owner, leaseMs),
    queues: new QueueStore(db, schema),
    waits: new WaitStore(db, schema),
    schedules: new ScheduleStore(db, schema),
    state: new StateStore(db, schema, owner),
  }
}
