import type { Pool, PoolClient } from 'pg'

export async function writeReport(tx: PoolClient, tick: string, visits: number): Promise<void> {
  await tx.query('insert into example_cron.reports (tick, visits, pid) values ($1, $2, $3)', [
    tick,
    visits,
    process.pid,
  ])
}

export async function listReports(pool: Pool) {
  const { rows } = await pool.query(
    'select id, tick, visits, pid from example_cron.reports order by tick desc limit 20',
  )
  return rows
}

/** A schema of its own: `DATABASE_URL` may be a database in which other things live. */
export async function createTables(pool: Pool): Promise<void> {
  // Two processes start at once, and one of them creates the tables.
  await pool.query(`
    begin;
    select pg_advisory_xact_lock(hashtext('example_cron'));
    create schema if not exists example_cron;
    create table if not exists example_cron.reports (
      id uuid primary key default gen_random_uuid(),
      -- Not unique: two reports of one tick would show here.
      tick timestamptz not null,
      visits int not null,
      pid int not null
    );
    commit`)
}
