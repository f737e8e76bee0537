import type { Pool } from 'pg'

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createTables(pool: Pool): Promise<void> {
  await pool.query(`
    drop schema if exists example_shop cascade;
    create schema example_shop;
    create table example_shop.stock (
      item text primary key,
      units int not null
    );
    insert into example_shop.stock
      values ('Moka pot', 1000), ('Enamel cup', 1000), ('Coffee beans', 1000);
    create table example_shop.reservations (
      id uuid primary key default gen_random_uuid(),
      item text not null
    );
    create table example_shop.orders (
      id uuid primary key default gen_random_uuid(),
      cart text not null,
      item text not null,
      amount int not null,
      charge text not null,
      attempt int,
      pid int not null,
      cancelled boolean not null default false,
      created_at timestamptz not null default clock_timestamp()
    )`)
}

export async function databaseName(pool: Pool): Promise<string> {
  const { rows } = await pool.query('show server_version')
  return `PostgreSQL ${String(rows[0].server_version).split(' ')[0]}`
}
