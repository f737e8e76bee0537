/** The options with which a workflow is started. */

/** Options of `workflow.start()`. */
export interface StartOptions {
  /**
   * Identifies the execution within the workflow. A second start with the same key starts nothing and returns
   * the handle of the first. Default: a random key; inside an execution, a key that is the same in every
   * attempt.
   */
  key?: string
  /** How long to wait before the execution begins. Default: it begins now. */
  delay?: number | string
  /** From 0 to 9. Of the executions that could begin, those with the highest priority begin first. Default 0. */
  priority?: number
  /** The key to which the queue's `concurrencyPerKey` limit applies. */
  queueKey?: string
  /**
   * Fire and forget: the execution that starts this one does not ask for its result later. The outcome is then
   * deleted after the workflow's `retention`, also while that execution goes on; otherwise it is kept for that
   * execution, until that has ended or has journaled the result. Everything else stays as it is: cancelling that
   * execution cancels this one too. Has no effect outside an execution. Default false.
   */
  ignoreResult?: boolean
  /**
   * A transaction of the app, in which the start is recorded: the workflow starts when it commits, and never
   * if it does not. A `pg` client, or the argument of the function in `transaction(name, fn)`, also that of
   * an ORM. Default: the transaction of a request with `transaction: true`; otherwise none.
   */
  tx?: unknown
}
