/** Batches concurrent operations into one SQL statement and one commit. */

import { setTimeout as sleep } from 'node:timers/promises'
import { runOutsideRequests } from '../context/outside-requests.ts'
import { classify } from './database/database.ts'
import { inTime, LATE } from './database/in-time.ts'
import { StatementError, statementEnded } from './database/statement-error.ts'

/** How long a batch waits for a lock, in ms. Then it is halved, so that one operation does not hold up the others. */
const LOCK_MS = 100

/** The pause between two waits of operations that are blocked, in ms. */
const BLOCKED_PAUSE_MS = 10

/**
 * Sends a batch as one statement; resolves to one result for each operation, in order.
 * @param lockMs how long the statement may wait for a lock, in ms; null: as long as the database allows
 */
export type SendBatch<Operation, Result> = (
  operations: Operation[],
  lockMs: number | null,
) => Promise<Result[]>

interface Queued<Operation, Result> {
  operation: Operation
  /** By performance.now(). */
  deadline: number
  resolve: (result: Result) => void
  reject: (error: unknown) => void
  isSent: boolean
  /** Set if the caller has given up what was sent: to be called once it has ended. */
  onEnd?: (ended?: Promise<void>) => void
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
 * If Postgres refuses a batch, or it waits for a lock, both halves are sent again, until the operation at fault is
 * alone; so it does not fail the others, nor hold them up. This is safe because a statement that failed changes
 * nothing, and because every operation may be sent twice. An operation that waits for a lock alone is then sent
 * beside the batches, for as long as its caller waits.
 */
export class GroupCommit<Operation, Result> {
  readonly #send: SendBatch<Operation, Result>
  readonly #timeoutMs: number
  readonly #limits: Required<BatchLimits<Operation>>
  #queue: Queued<Operation, Result>[] = []
  #isSending = false
  /** Operations that waited for a lock alone. */
  readonly #blocked: Queued<Operation, Result>[] = []
  #isSendingBlocked = false

  /** @param timeoutMs how long an operation may take, with the wait for its batch, in ms */
  constructor(
    send: SendBatch<Operation, Result>,
    timeoutMs: number,
    {
      maxOperations = 256,
      maxBytes = 16 * 1024 ** 2,
      sizeOf = () => 0,
    }: BatchLimits<Operation> = {},
  ) {
    this.#send = send
    this.#timeoutMs = timeoutMs
    this.#limits = { maxOperations, maxBytes, sizeOf }
  }

  /**
   * Resolves to the operation's result once the statement that carried it has committed.
   * @param withinMs how long it may take, in ms. Default and maximum: the timeout
   * @throws StatementError if it takes longer. An operation that was not sent until then never is
   */
  async run(operation: Operation, withinMs = this.#timeoutMs): Promise<Result> {
    const timeoutMs = Math.min(withinMs, this.#timeoutMs)
    const deadline = performance.now() + timeoutMs
    let queued: Queued<Operation, Result> | undefined
    const result = new Promise<Result>((resolve, reject) => {
      queued = { operation, deadline, resolve, reject, isSent: false }
      this.#queue.push(queued)
      if (this.#isSending) return
      this.#isSending = true
      // After this turn of the event loop, so that requests that arrived together share a batch.
      runOutsideRequests(() => setImmediate(() => this.#sendQueued()))
    })
    try {
      return await inTime(timeoutMs, result)
    } catch (error) {
      if (error !== LATE) throw error
      throw this.#giveUp(queued as Queued<Operation, Result>)
    }
  }

  #giveUp(queued: Queued<Operation, Result>): StatementError {
    if (queued.isSent) {
      const ended = new Promise<void>((resolve) => {
        queued.onEnd = resolve
      })
      return new StatementError('timeout', `no reply within ${this.#timeoutMs} ms`, ended)
    }
    this.#queue.splice(this.#queue.indexOf(queued), 1)
    const message = `earlier statements have had no reply for ${this.#timeoutMs} ms`
    return new StatementError('timeout', message)
  }

  async #sendQueued(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, this.#batchSize())
      for (const queued of batch) queued.isSent = true
      await this.#sendBatch(batch)
    }
    this.#isSending = false
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

  /** Resolves when the batch has its results, or has failed, or waits for a lock alone. */
  async #sendBatch(all: Queued<Operation, Result>[]): Promise<void> {
    const batch = all.filter(isAwaited)
    if (batch.length === 0) return
    const failure = await this.#trySend(batch, LOCK_MS)
    if (failure === 'blocked' && batch.length === 1) {
      this.#blocked.push(...batch)
      if (!this.#isSendingBlocked) void this.#sendBlocked()
    } else if (failure) {
      const half = batch.length >> 1
      await this.#sendBatch(batch.slice(0, half))
      await this.#sendBatch(batch.slice(half))
    }
  }

  /** Sends what waits for locks, one after the other. Each may wait for its share of the time that it has left. */
  async #sendBlocked(): Promise<void> {
    this.#isSendingBlocked = true
    for (let next = this.#blocked.shift(); next; next = this.#blocked.shift()) {
      if (!isAwaited(next)) continue
      const left = (next.deadline - performance.now()) / (this.#blocked.length + 1)
      const lockMs = Number.isFinite(left) ? Math.max(LOCK_MS, Math.ceil(left)) : null
      if (!(await this.#trySend([next], lockMs))) continue
      this.#blocked.push(next)
      await sleep(BLOCKED_PAUSE_MS)
    }
    this.#isSendingBlocked = false
  }

  /** @returns why the batch must be sent otherwise; undefined if its operations are settled */
  async #trySend(
    batch: Queued<Operation, Result>[],
    lockMs: number | null,
  ): Promise<'blocked' | 'refused' | undefined> {
    try {
      const results = await this.#send(
        batch.map(({ operation }) => operation),
        lockMs,
      )
      batch.forEach((queued, i) => {
        queued.resolve(results[i] as Result)
        queued.onEnd?.()
      })
    } catch (error) {
      const failure = classify(error)
      if (failure === 'blocked' || (failure === 'refused' && batch.length > 1)) return failure
      const ended = statementEnded(error)
      for (const queued of batch) {
        queued.reject(error)
        queued.onEnd?.(ended)
      }
    }
    return undefined
  }
}

/** Whether the caller still waits. If not, what failed has ended: it is not sent again. */
function isAwaited<Operation, Result>(queued: Queued<Operation, Result>): boolean {
  queued.onEnd?.()
  return !queued.onEnd
}
