import type { Pool } from 'pg'
import type { Order } from './board.ts'

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createOrders(pool: Pool): Promise<void> {
  await pool.query(`
    drop schema if exists example_shop cascade;
    create schema example_shop;
    create table example_shop.orders (
      id uuid primary key,
      cart text not null,
      item text not null,
      amount int not null,
      charge text not null,
      attempt int,
      pid int not null,
      created_at timestamptz not null default clock_timestamp()
    )`)
}

export async function listOrders(pool: Pool): Promise<Order[]> {
  const { rows } = await pool.query<Order>(
    `select id, cart, item, amount, charge, attempt, pid
     from example_shop.orders order by created_at desc limit 100`,
  )
  return rows
}

export async function databaseName(pool: Pool): Promise<string> {
  const { rows } = await pool.query('show server_version')
  return `PostgreSQL ${String(rows[0].server_version).split(' ')[0]}`
}
