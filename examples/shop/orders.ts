import type { Pool, PoolClient } from 'pg'
import type { Order } from './board.ts'

type NewOrder = Pick<Order, 'cart' | 'item' | 'amount' | 'charge' | 'attempt'>

export async function recordOrder(tx: PoolClient, order: NewOrder) {
  const { cart, item, amount, charge, attempt } = order
  const { rows } = await tx.query<NewOrder & { id: string }>(
    `insert into example_shop.orders (cart, item, amount, charge, attempt, pid)
     values ($1, $2, $3, $4, $5, $6) returning id, item, amount, charge, attempt`,
    [cart, item, amount, charge, attempt, process.pid],
  )
  return rows[0] as NewOrder & { id: string }
}

export async function cancelOrder(pool: Pool, id: string): Promise<void> {
  await pool.query('update example_shop.orders set cancelled = true where id = $1', [id])
}

export async function listOrders(pool: Pool): Promise<Order[]> {
  const { rows } = await pool.query<Order>(
    `select id, cart, item, amount, charge, attempt, pid, cancelled
     from example_shop.orders order by created_at desc limit 100`,
  )
  return rows
}
