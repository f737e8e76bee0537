/**
 * Tells which idle connections of a pool are probably dead.
 *
 * A failover, or a proxy that restarts, loses all connections of a pool at once, and a connection that is
 * idle does not learn of it. Each would fail one more statement, after a whole timeout where nothing comes
 * back. So when one connection breaks, those that have not answered since are not used any more. One that
 * is healthy is then replaced for nothing, which costs a handshake.
 */
export class StaleConnections<Client extends object> {
  static #ofPools = new WeakMap<object, StaleConnections<object>>()

  /** Those of a pool of node-postgres, from now on. */
  static of<Client extends object>(pool: object): StaleConnections<Client> {
    const known = StaleConnections.#ofPools.get(pool)
    if (known) return known as StaleConnections<Client>
    const stale = new StaleConnections<Client>()
    StaleConnections.#ofPools.set(pool, stale as never)
    // The pool has already dropped an idle connection that it reports here. Without a listener, a
    // restart of PostgreSQL would end the process.
    const events = pool as PoolEvents<Client>
    events.on('error', () => {})
    events.on('connect', (client) => stale.answered(client))
    return stale
  }

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

interface PoolEvents<Client> {
  on(event: 'error' | 'connect', listener: (client: Client) => void): unknown
}
