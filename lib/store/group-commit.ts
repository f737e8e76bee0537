/** Batches concurrent operations into one SQL statement and one commit. */

import { runOutsideRequests } from '../context/outside-requests.ts'
import { classify } from './database/database.ts'

interface Queued<Operation, Result> {
  operation: Operation
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

/** The limits of one batch, which is sent as one statement. */
export interface BatchLimits<Operation> {
  /** How many operations. Default 256. */
  maxOperations?: number
  /** How many bytes, as `sizeOf` counts them. Default 16 MiB: the statement must be sent within a timeout. */
  maxBytes?: number
  /** The approximate size of an operation, in bytes. Default 0: the operations are small. */
  sizeOf?: (operation: Operation) => number
}

/**
 * Sends many operations as one statement with one commit. Operations that arrive while a statement is in flight
 * wait, and are sent together when it returns. There is no timer: an idle process sends at once, and a busy one
 * batches for as long as the database takes to answer.
 *
 * If Postgres refuses a batch, both halves are sent again, until the refused operation is alone; so it does not
 * fail the others. This is safe because a refused statement changes nothing, and because every operation may
 * be sent twice.
 */
export class GroupCommit<Operation, Result> {
  readonly #send: (operations: Operation[]) => Promise<Result[]>
  readonly #limits: Required<BatchLimits<Operation>>
  #queue: Queued<Operation, Result>[] = []
  #sending = false

  /**
   * @param send sends a batch as one statement; resolves to one result for each operation, in order
   */
  constructor(
    send: (operations: Operation[]) => Promise<Result[]>,
    {
      maxOperations = 256,
      maxBytes = 16 * 1024 ** 2,
      sizeOf = () => 0,
    }: BatchLimits<Operation> = {},
  ) {
    this.#send = send
    this.#limits = { maxOperations, maxBytes, sizeOf }
  }

  /** Resolves to the operation's result once the statement that carried it has committed. */
  run(operation: Operation): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ operation, resolve, reject })
      if (this.#sending) return
      this.#sending = true
      // After this turn of the event loop, so that requests that arrived together share a batch.
      runOutsideRequests(() => setImmediate(() => this.#sendQueued()))
    })
  }

  async #sendQueued(): Promise<void> {
    while (this.#queue.length > 0) {
      await this.#sendBatch(this.#queue.splice(0, this.#batchSize()))
    }
    this.#sending = false
  }

  /** How many of the queued operations fit into one batch: at least one. */
  #batchSize(): number {
    const { maxOperations, maxBytes, sizeOf } = this.#limits
    const count = Math.min(maxOperations, this.#queue.length)
    let bytes = 0
    for (let n = 0; n < count; n++) {
      bytes += sizeOf((this.#queue[n] as Queued<Operation, Result>).operation)
      if (bytes > maxBytes) return Math.max(n, 1)
    }
    return count
  }

  async #sendBatch(batch: Queued<Operation, Result>[]): Promise<void> {
    try {
      const results = await this.#send(batch.map((queued) => queued.operation))
      batch.forEach((queued, i) => {
        queued.resolve(results[i] as Result)
      })
    } catch (error) {
      if (batch.length === 1 || classify(error) !== 'refused') {
        for (const queued of batch) queued.reject(error)
        return
      }
      const half = batch.length >> 1
      await this.#sendBatch(batch.slice(0, half))
      await this.#sendBatch(batch.slice(half))
    }
  }
}
