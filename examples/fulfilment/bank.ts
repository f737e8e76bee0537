import { TerminalError } from 'pawl'
import type { Pool } from 'pg'

/**
 * Stands in for a payment provider: its ledger is not the app's, and no transaction of the app's undoes
 * it. As real ones do, it charges once for each idempotency key.
 */
export class Bank {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** @returns the charge's id */
  async charge(order: { amount: number; card: string }, idempotencyKey: string): Promise<string> {
    if (order.card === 'declined')
      throw new TerminalError('The card was declined.', { status: 402 })
    const { rows } = await this.#pool.query(
      `insert into example_fulfilment.charges (key, amount) values ($1, $2)
       on conflict (key) do update set asked = charges.asked + 1 returning id`,
      [idempotencyKey, order.amount],
    )
    return rows[0].id
  }

  /** Asked twice, it refunds once. */
  async refund(charge: string): Promise<void> {
    await this.#pool.query('update example_fulfilment.charges set refunded = true where id = $1', [
      charge,
    ])
  }
}
