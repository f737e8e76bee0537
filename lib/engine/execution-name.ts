import { executionId } from './execution-id.ts'

/** What `pawl.find` tells of an execution. */
export interface ExecutionState {
  /** A UUID, derived from scope and key. */
  id: string
  /**
   * `interrupted`: its process died. `unknown`: nobody can know what it did.
   * `parked`: workers have given up. */
  status: 'running' | 'interrupted' | 'waiting' | 'released' | 'unknown' | 'parked' | 'done'
  attempt: number
  /** The HTTP status of the outcome; null if there is none yet. */
  responseStatus: number | null
}

/** Names an execution: a request by its scope and key, a workflow by its id. */
export type ExecutionName =
  | {
      /** As the `scope` option gave it; default `''`. */
      scope?: string
      key: string
    }
  | { id: string }

/** @internal */
export function idOf(name: ExecutionName): string {
  return 'id' in name ? name.id : executionId(name.scope ?? '', name.key)
}
