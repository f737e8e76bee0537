/**
 * How many retries a client may still send: a token bucket, so that a server that is down sees
 * at most a fifth more requests from its clients, not eight times as many.
 *
 * As in the AWS SDKs' standard retry mode (500 tokens, a retry costs 5, a success returns 1;
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html), counted in
 * retries: 100 in hand, and a success returns a fifth of one. That is also Finagle's share of 20
 * percent (https://finagle.github.io/blog/2016/02/08/retry-budgets). No clock is involved.
 */
export class RetryBudget {
  readonly #capacity: number
  readonly #ratio: number
  #tokens: number

  /**
   * @param options.capacity retries that may fail in a row, default 100
   * @param options.ratio retries that each answered request earns, default 0.2
   */
  constructor({ capacity = 100, ratio = 0.2 }: { capacity?: number; ratio?: number } = {}) {
    this.#capacity = this.#tokens = capacity
    this.#ratio = ratio
  }

  /** Takes one retry out; false when there is none. */
  withdraw(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }

  /** A final answer has come. One that a retry brought returns what that retry cost, as in AWS. */
  deposit(retried: boolean): void {
    this.#tokens = Math.min(this.#capacity, this.#tokens + (retried ? 1 : this.#ratio))
  }
}
