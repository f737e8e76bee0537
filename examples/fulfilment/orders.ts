import type { Pool, PoolClient } from 'pg'

interface NewOrder {
  item: string
  amount: number
  address: string
}

/** @returns the order's id */
export async function recordOrder(tx: PoolClient, order: NewOrder, charge: string) {
  const { rows } = await tx.query<{ id: string }>(
    `insert into example_fulfilment.orders (item, amount, address, charge)
     values ($1, $2, $3, $4) returning id`,
    [order.item, order.amount, order.address, charge],
  )
  return (rows[0] as { id: string }).id
}

export async function markOrder(
  db: Pool | PoolClient,
  id: string,
  state: 'accepted' | 'shipped' | 'cancelled',
): Promise<void> {
  await db.query('update example_fulfilment.orders set state = $2 where id = $1', [id, state])
}

export async function listOrders(pool: Pool) {
  const { rows } = await pool.query(
    `select o.id, o.item, o.amount, o.address, o.state, c.refunded
     from example_fulfilment.orders o join example_fulfilment.charges c on c.id = o.charge
     order by o.created_at desc limit 20`,
  )
  return rows
}
