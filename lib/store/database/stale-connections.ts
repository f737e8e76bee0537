/**
 * Tells which idle connections of a pool are probably dead.
 *
 * A failover, or a proxy that restarts, loses all connections of a pool at once, and a connection that is
 * idle does not learn of it. Each would fail one more statement, after a whole timeout where nothing comes
 * back. So when one connection breaks, those that have not answered since are not used any more. One that
 * is healthy is then replaced for nothing, which costs a handshake.
 */
export class StaleConnections<Client extends object> {
  readonly #answeredAt = new WeakMap<Client, number>()
  #brokenSince = Number.NEGATIVE_INFINITY

  /** The connection works: it was just opened, or Postgres has answered on it. */
  answered(client: Client): void {
    this.#answeredAt.set(client, performance.now())
  }

  /**
   * A connection broke, or did not answer in time.
   * @param sentAt when its statement was sent, by performance.now(). Under overload the other connections
   * have answered since, so that a slow database is not burdened with new connections too.
   */
  broke(sentAt: number): void {
    this.#brokenSince = Math.max(this.#brokenSince, sentAt)
  }

  /** Whether the connection has not answered since another one broke. Of an unknown one: no. */
  isStale(client: Client): boolean {
    const answeredAt = this.#answeredAt.get(client)
    return answeredAt !== undefined && answeredAt <= this.#brokenSince
  }
}
