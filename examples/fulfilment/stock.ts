import { TerminalError } from 'pawl'
import type { Pool, PoolClient } from 'pg'

export async function reserve(tx: PoolClient, order: string, item: string): Promise<void> {
  const { rowCount } = await tx.query(
    'update example_fulfilment.stock set units = units - 1 where item = $1 and units > 0',
    [item],
  )
  if (rowCount === 0) throw new TerminalError(`There is no ${item} left.`)
  await tx.query('insert into example_fulfilment.reservations (order_id, item) values ($1, $2)', [
    order,
    item,
  ])
}

/** Once, however often it is called: a crash may call it twice. */
export async function putBack(pool: Pool, order: string): Promise<void> {
  await pool.query(
    `with released as (
       delete from example_fulfilment.reservations where order_id = $1 returning item
     )
     update example_fulfilment.stock set units = units + 1 from released
     where stock.item = released.item`,
    [order],
  )
}
