import { TerminalError } from 'pawl'
import type { Pool } from 'pg'

/** How often it cannot be reached in a storm. */
const STORM = 2

/** Stands in for a carrier: one parcel for each idempotency key. */
export class Carrier {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** @returns the parcel's id */
  async ship(address: string, idempotencyKey: string): Promise<string> {
    if (address === 'nowhere') throw new TerminalError('Nobody delivers to nowhere.')
    const { rows } = await this.#pool.query(
      `insert into example_fulfilment.parcels (key, address) values ($1, $2)
       on conflict (key) do update set asked = parcels.asked + 1 returning id, asked`,
      [idempotencyKey, address],
    )
    const { id, asked } = rows[0]
    if (address === 'storm' && asked <= STORM) throw new Error('The carrier cannot be reached.')
    return id
  }

  async recall(parcel: string): Promise<void> {
    await this.#pool.query('update example_fulfilment.parcels set recalled = true where id = $1', [
      parcel,
    ])
  }
}
