import type { Pool } from 'pg'

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createTables(pool: Pool): Promise<void> {
  await pool.query(`
    create schema if not exists example_chatbot;
    create table if not exists example_chatbot.events (
      conversation text not null,
      n int not null,
      turn text not null,
      -- Of the model's answers within the turn; 0: of the turn itself.
      round int not null,
      kind text not null,
      data json not null,
      primary key (conversation, n)
    );
    create table if not exists example_chatbot.refunds (
      key text primary key,
      order_id text not null,
      euros numeric not null
    )`)
}
