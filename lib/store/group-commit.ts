import { classify } from './database/database.ts'

interface Waiting<Operation, Result> {
  operation: Operation
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

/** How much one statement may carry. */
export interface Limits<Operation> {
  /** Operations. Default 256. */
  max?: number
  /** Bytes, as `weigh` counts them. Default 16 MiB: one statement has to arrive within a timeout. */
  maxWeight?: number
  /** The bytes of an operation. Default: none worth counting. */
  weigh?: (operation: Operation) => number
}

/**
 * Many operations, one statement, one commit. While a statement is in flight, operations collect;
 * when it returns, all of them travel as the next one. There is no timer: an idle process sends at
 * once, a busy one shares the commit (the measure is the database's own latency).
 *
 * An operation that Postgres refuses does not fail its neighbours: the batch is halved until the
 * refused one is alone. That is safe only because a refused statement leaves nothing behind, and
 * because every operation may be sent twice.
 */
export class GroupCommit<Operation, Result> {
  readonly #send: (operations: Operation[]) => Promise<Result[]>
  readonly #limits: Required<Limits<Operation>>
  #queue: Waiting<Operation, Result>[] = []
  #sending = false

  /**
   * @param send sends a batch as one statement; resolves to one result for each operation, in order
   */
  constructor(
    send: (operations: Operation[]) => Promise<Result[]>,
    { max = 256, maxWeight = 16 * 1024 ** 2, weigh = () => 0 }: Limits<Operation> = {},
  ) {
    this.#send = send
    this.#limits = { max, maxWeight, weigh }
  }

  /** Resolves to the operation's result once the statement that carried it has committed. */
  run(operation: Operation): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ operation, resolve, reject })
      if (this.#sending) return
      this.#sending = true
      // Not now but after this turn of the event loop: requests that arrived together go together.
      setImmediate(() => this.#pump())
    })
  }

  async #pump(): Promise<void> {
    while (this.#queue.length > 0) {
      await this.#deliver(this.#queue.splice(0, this.#fit()))
    }
    this.#sending = false
  }

  /** How many of those that wait fit into one statement: one at least. */
  #fit(): number {
    const { max, maxWeight, weigh } = this.#limits
    const most = Math.min(max, this.#queue.length)
    let weight = 0
    for (let n = 0; n < most; n++) {
      weight += weigh((this.#queue[n] as Waiting<Operation, Result>).operation)
      if (weight > maxWeight) return Math.max(n, 1)
    }
    return most
  }

  async #deliver(batch: Waiting<Operation, Result>[]): Promise<void> {
    try {
      const results = await this.#send(batch.map((waiting) => waiting.operation))
      batch.forEach((waiting, i) => {
        waiting.resolve(results[i] as Result)
      })
    } catch (error) {
      if (batch.length === 1 || classify(error) !== 'refused') {
        for (const waiting of batch) waiting.reject(error)
        return
      }
      const half = batch.length >> 1
      await this.#deliver(batch.slice(0, half))
      await this.#deliver(batch.slice(half))
    }
  }
}
