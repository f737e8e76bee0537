import type { Pool } from 'pg'

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createTables(pool: Pool): Promise<void> {
  await pool.query(`
    create schema if not exists example_fulfilment;
    create table if not exists example_fulfilment.stock (
      item text primary key,
      units int not null
    );
    insert into example_fulfilment.stock
      values ('Moka pot', 1000), ('Enamel cup', 1000), ('Coffee beans', 1000)
      on conflict do nothing;
    create table if not exists example_fulfilment.reservations (
      order_id uuid primary key,
      item text not null
    );
    create table if not exists example_fulfilment.orders (
      id uuid primary key default gen_random_uuid(),
      item text not null,
      amount int not null,
      address text not null,
      charge uuid not null,
      state text not null default 'paid',
      created_at timestamptz not null default clock_timestamp()
    );
    -- Somebody else's: the bank's, and the carrier's.
    create table if not exists example_fulfilment.charges (
      id uuid primary key default gen_random_uuid(),
      key text not null unique,
      amount int not null,
      asked int not null default 1,
      refunded boolean not null default false
    );
    create table if not exists example_fulfilment.parcels (
      id uuid primary key default gen_random_uuid(),
      key text not null unique,
      address text not null,
      asked int not null default 1,
      recalled boolean not null default false
    )`)
}
