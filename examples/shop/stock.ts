import { TerminalError } from 'pawl'
import type { Pool, PoolClient } from 'pg'

/** @returns the id of the reservation */
export async function reserve(tx: PoolClient, item: string): Promise<string> {
  const { rowCount } = await tx.query(
    'update example_shop.stock set units = units - 1 where item = $1 and units > 0',
    [item],
  )
  if (rowCount === 0) throw new TerminalError(`There is no ${item} left.`, { status: 409 })
  const { rows } = await tx.query(
    'insert into example_shop.reservations (item) values ($1) returning id',
    [item],
  )
  return rows[0].id
}

/** Puts it back; once, however often it is called: a crash may call it twice. */
export async function release(pool: Pool, reservation: string): Promise<void> {
  await pool.query(
    `with released as (
       delete from example_shop.reservations where id = $1 returning item
     )
     update example_shop.stock set units = units + 1 from released
     where stock.item = released.item`,
    [reservation],
  )
}
