import type { Pool } from 'pg'

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createTables(pool: Pool): Promise<void> {
  await pool.query(`
    create schema if not exists example_approval;
    create table if not exists example_approval.expenses (
      id uuid primary key,
      employee text not null,
      what text not null,
      amount int not null,
      verdict text,
      created_at timestamptz not null default clock_timestamp()
    );
    -- Somebody else's: the mail server's.
    create table if not exists example_approval.mails (
      key text primary key,
      text text not null,
      sent_at timestamptz not null default clock_timestamp()
    )`)
}
