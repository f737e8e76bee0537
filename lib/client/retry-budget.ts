/** A token bucket that limits how many retries a client sends in all. */

/**
 * A token bucket of retries. It keeps the retries of a client to a fifth of its requests, so that a
 * server that is down gets at most a fifth more requests, not eight times as many.
 *
 * As in the AWS SDKs' standard retry mode (500 tokens, a retry costs 5, a success returns 1;
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html), counted in
 * retries: the bucket starts with 100, and a success returns a fifth of one. That is also Finagle's
 * share of 20 percent (https://finagle.github.io/blog/2016/02/08/retry-budgets). The bucket uses no
 * clock.
 */
export class RetryBudget {
  readonly #capacity: number
  readonly #ratio: number
  #tokens: number

  /**
   * @param options.capacity retries that may fail in a row, default 100
   * @param options.ratio how much of a retry each request with a final response earns, default 0.2
   */
  constructor({ capacity = 100, ratio = 0.2 }: { capacity?: number; ratio?: number } = {}) {
    this.#capacity = this.#tokens = capacity
    this.#ratio = ratio
  }

  /** Takes one retry out of the bucket; returns false when none is left. */
  withdraw(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }

  /**
   * Records a final response.
   * @param retried whether a retry got it. It then returns what that retry cost, as in AWS
   */
  deposit(retried: boolean): void {
    this.#tokens = Math.min(this.#capacity, this.#tokens + (retried ? 1 : this.#ratio))
  }
}
