import { beforeAll } from 'vitest'
import type { TestDatabase } from './database.ts'

/** A clock of the database that a test sets; it goes on from there. */
export interface TestClock {
  /** Sets it, and lets every process look what is due. */
  set(time: string | Date): Promise<void>
}

/** Gives the database of a test file a clock that the test sets. */
export function withClock({ pool }: TestDatabase): TestClock {
  beforeAll(async () => {
    await pool.query(`
      create table pawl.test_clock (ahead interval not null);
      insert into pawl.test_clock values ('0');
      create or replace function pawl.now() returns timestamptz language sql volatile parallel safe
        as 'select clock_timestamp() + (select ahead from pawl.test_clock)'`)
  })
  return {
    async set(time) {
      await pool.query(`update pawl.test_clock set ahead = $1::timestamptz - clock_timestamp()`, [
        new Date(time),
      ])
      await pool.query(`select pg_notify('pawl', 'due')`)
    },
  }
}
