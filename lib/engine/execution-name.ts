/** How an app identifies an execution to Pawl, and the summary that `pawl.find` returns. */

import { executionId } from './execution-id.ts'

/** The state of an execution, as `pawl.find` returns it. */
export interface ExecutionState {
  /** A UUID, derived from scope and key. */
  id: string
  /**
   * `interrupted`: its process died. `unknown`: an attempt ended without a result, so its effects are unknown.
   * `parked`: workers have given up.
   */
  status: 'running' | 'interrupted' | 'waiting' | 'released' | 'unknown' | 'parked' | 'done'
  attempt: number
  /** The HTTP status of the outcome; null if there is none yet. */
  responseStatus: number | null
}

/** Identifies an execution: a request by its scope and key, a workflow by its id. */
export type ExecutionName =
  | {
      /** The value that the `scope` option returned; default `''`. */
      scope?: string
      key: string
    }
  | { id: string }

/** Returns the id of the named execution. @internal */
export function executionIdOf(name: ExecutionName): string {
  return 'id' in name ? name.id : executionId(name.scope ?? '', name.key)
}
