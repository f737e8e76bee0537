/** Options of a start. */
export interface StartOptions {
  /**
   * Names it within the workflow: a second start with the same key is the first one's handle. Default: a
   * new one; inside an execution one that is the same in every attempt.
   */
  key?: string
  /** When it begins. Default: now. */
  delay?: number | string
  /** From 0 to 9: of several that could begin, the highest is first. Default 0. */
  priority?: number
  /** The key whose limits it runs under, in queues with `concurrencyPerKey`. */
  queueKey?: string
  /**
   * A transaction of the app's (a `pg` client, or what `transaction(name, fn)` hands out, also of an ORM):
   * the workflow is started when that commits, and not at all if it does not. Default: that of a request
   * with `transaction: true`; else none.
   */
  tx?: unknown
}
