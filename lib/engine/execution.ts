/** What handler code holds of the execution it runs in. */
export interface Execution {
  /** Derived from scope and key: the same for every attempt and every process. A UUID. */
  readonly id: string
  /** The namespace of the key; empty if the app names none. */
  readonly scope: string
  /** The idempotency key, unquoted. */
  readonly key: string
  /** The number of this try at running the execution, from 1. */
  readonly attempt: number
  /** Fires when this attempt is no longer the current one: its time is up, or the app stops. */
  readonly abortSignal: AbortSignal
}
