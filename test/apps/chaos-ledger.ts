/**
 * The ledger of the chaos test: what really happened, kept in a database that Pawl does not know and that never
 * crashes. Every run of an effect adds a row, with nothing that would make a second run look like the first.
 */
import { randomUUID } from 'node:crypto'
import pg from 'pg'

/** The limits of a place that executions hold: how many at a time in the queue, and for one key of it. */
export interface HoldLimits {
  queue: string
  concurrency: number
  key: string
  perKey: number
}

/**
 * What an execution says of the place that it holds. A phase only ever follows a lower one, so that a process that was
 * stopped, and goes on after another one has finished its execution, changes nothing.
 */
const PHASES = { begun: 1, lent: 2, returned: 3, ended: 4 } as const

export type Phase = keyof typeof PHASES

/** To be run once, in an empty database. */
export const LEDGER_SCHEMA = `
  create table effects (
    execution uuid not null, step text not null, attempt int not null, nonce uuid not null, pid int not null,
    at timestamptz not null default clock_timestamp()
  );
  create table attempts (
    execution uuid not null, attempt int not null, pid int not null, at timestamptz not null default clock_timestamp()
  );
  create table holds (
    execution uuid primary key, queue text not null, key text not null, phase int not null, first bigserial
  );
  create index holds_open on holds (queue) where phase in (1, 3);
  create table violations (what text not null, at timestamptz not null default clock_timestamp());

  -- Checks the limits under a lock: of two that begin at once, the second sees the first.
  create function hold(id uuid, in_queue text, for_key text, to_phase int, most int, most_of_key int) returns void
    language plpgsql
  as $$
  declare
    changed uuid;
    others int;
  begin
    perform pg_advisory_xact_lock(hashtext(in_queue));
    insert into holds as h (execution, queue, key, phase) values (id, in_queue, for_key, to_phase)
    on conflict (execution) do update set phase = excluded.phase where h.phase < excluded.phase
    returning execution into changed;
    if changed is null or to_phase not in (1, 3) then return; end if;
    select count(*) into others from holds where queue = in_queue and phase in (1, 3);
    if others > most then
      insert into violations (what) values (format('%s holds the place %s of %s in %s', id, others, most, in_queue));
    end if;
    select count(*) into others from holds where queue = in_queue and key = for_key and phase in (1, 3);
    if others > most_of_key then
      insert into violations (what)
      values (format('%s holds the place %s of %s of key %s in %s', id, others, most_of_key, for_key, in_queue));
    end if;
  end
  $$;`

/** Writes into the ledger. */
export class Ledger {
  readonly #pool: pg.Pool

  constructor(url: string) {
    this.#pool = new pg.Pool({ connectionString: url, max: 6 })
    this.#pool.on('error', () => {})
  }

  /** Notes that an attempt has begun, and so has read its journal. */
  async attempt(execution: { id: string; attempt: number }): Promise<void> {
    await this.#pool.query('insert into attempts values ($1, $2, $3)', [
      execution.id,
      execution.attempt,
      process.pid,
    ])
  }

  /** Adds a row, whatever was there before. @returns what tells this run of the effect from all others */
  async effect(execution: { id: string; attempt: number }, step: string): Promise<string> {
    const nonce = randomUUID()
    await this.#pool.query('insert into effects values ($1, $2, $3, $4, $5)', [
      execution.id,
      step,
      execution.attempt,
      nonce,
      process.pid,
    ])
    return nonce
  }

  /** Notes what has become of the place that an execution holds. */
  async hold(id: string, limits: HoldLimits, phase: Phase): Promise<void> {
    const { queue, concurrency, key, perKey } = limits
    await this.#pool.query('select hold($1, $2, $3, $4, $5, $6)', [
      id,
      queue,
      key,
      PHASES[phase],
      concurrency,
      perKey,
    ])
  }
}
