import { fragments } from './fragments.ts'

/** The SQL of the journal. The rules of statements.ts hold here too. */
export type StepStatements = ReturnType<typeof stepStatements>

/** @param schema the schema's name, quoted as an identifier */
export function stepStatements(schema: string) {
  const { now, clock, born, micros, ms, ended } = fragments(schema)
  const columns = `execution_id, life, name, occurrence, position, kind, output, error, attempt,
          started_at, completed_at`

  /** @param guarded whether only the current attempt may write */
  const record = (guarded: boolean) => `
      with ${clock},
      input as (
        select * from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::int4[], $6::int4[],
            $7::text[], $8::bytea[], $9::bytea[], $10::int8[], $11::bool[])
          with ordinality as t (id, born, attempt, name, occurrence, position, kind, output, error,
            took, completed, n)
      ),
      target as (
        select input.*, e.created_at,
          e.status = 'running' and e.owner = $12::uuid and e.attempt = input.attempt as current,
          e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${born('e')} = input.born
        where e.status <> 'done'
        ${
          guarded
            ? `and e.status = 'running' and e.owner = $12::uuid and e.attempt = input.attempt
        order by e.id
        for share of e`
            : ''
        }
      ),
      recorded as (
        insert into ${schema}.steps as s (${columns})
        select id, created_at, name, occurrence, position, kind, output, error, attempt,
          clock.now - ${ms('took')}, case when completed then clock.now end
        from target, clock
        order by id, name, occurrence
        on conflict (execution_id, life, name, occurrence) do update
          set output = excluded.output, error = excluded.error, position = excluded.position,
            attempt = excluded.attempt, completed_at = excluded.completed_at
          where s.completed_at is null and excluded.completed_at is not null and s.kind = excluded.kind
        returning s.execution_id, s.name, s.occurrence
      )
      select target.n::int4, recorded.name is not null, target.current, ${micros('clock.now')}::text,
        target.cancelling
      from target
      cross join clock
      left join recorded on recorded.execution_id = target.id and recorded.name = target.name
        and recorded.occurrence = target.occurrence`

  return {
    /**
     * A success, which any attempt may record. Safe: the primary key lets one insert win, and a
     * concurrent one waits for it and then changes nothing, unless what it finds is the bare intent of
     * this step: that is filled in once, under the row's lock. Entries go in in the order of their key,
     * so that two batches that overlap cannot deadlock. Whether the attempt is current is read from the
     * snapshot: it only tells the attempt to stop. A done execution takes no more entries.
     */
    record: record(false),

    /**
     * What only the current attempt may write: failures, and intents. Safe: as above, and the
     * execution's row is locked while it is checked, so that a takeover comes before or after, and a
     * stale process cannot fail a step of a healthy one.
     */
    recordGuarded: record(true),

    /**
     * The decision to give up. Safe: only the current attempt can make it, under the row's lock; and from
     * that commit on the row says so, so that no stale attempt completes with a success what is being
     * undone.
     */
    giveUp: `
      with ${clock},
      target as (
        update ${schema}.executions e
        set giving_up = true
        where e.id = $1::uuid and ${born('e')} = $2::int8 and e.attempt = $3::int4
          and e.status = 'running' and e.owner = $4::uuid
        returning e.id, e.created_at
      ),
      recorded as (
        insert into ${schema}.steps (${columns})
        select id, created_at, $5::text, $6::int4, $7::int4, $8::text, ($9::bytea[])[1], null, $3::int4,
          clock.now, clock.now
        from target, clock
        on conflict (execution_id, life, name, occurrence) do nothing
        returning name
      )
      select recorded.name is not null, ${micros('clock.now')}::text
      from target cross join clock left join recorded on true`,

    /**
     * All that is recorded of executions. Safe: reads. One look-up for each of them (offset 0), whatever the
     * planner thinks of the table.
     */
    journal: `
      select input.n::int4, s.name, s.occurrence, s.kind, s.output, s.error, s.attempt,
        s.completed_at is not null, ${micros('coalesce(s.completed_at, s.started_at)')}::text
      from unnest($1::uuid[], $2::int8[]) with ordinality as input (id, born, n)
      join ${schema}.executions e on e.id = input.id and ${born('e')} = input.born
      cross join lateral (
        select * from ${schema}.steps s where s.execution_id = e.id and s.life = e.created_at offset 0
      ) as s
      order by input.n, s.position, s.completed_at, s.name, s.occurrence`,

    /**
     * The journal entry of a transaction step, as the last statement of the app's own transaction. Safe:
     * the primary key lets one transaction win; another waits at it for that commit, inserts nothing,
     * and is rolled back. Plain text parameters in the order of their numbers, each used once, and one
     * column, since the statement goes by way of whatever library the app uses. No row: the execution is
     * not in this database. Null: recorded already, or over, or being undone. Else when, and whether by an attempt that is not current.
     */
    recordInTransaction: `
      with input (id, born, attempt, name, occurrence, position, kind, output, took) as (
        values ($1::uuid, $2::int8, $3::int4, $4::text, $5::int4, $6::int4, $7::text,
          decode($8::text, 'base64'), $9::int8)
      ),
      ${clock},
      target as (
        select input.*, e.created_at, e.status <> 'done' and not e.giving_up as open,
          e.status = 'running' and e.attempt = input.attempt as current, e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${born('e')} = input.born
      ),
      recorded as (
        insert into ${schema}.steps (${columns})
        select id, created_at, name, occurrence, position, kind, output, null, attempt,
          clock.now - ${ms('took')}, clock.now
        from target, clock
        where open
        on conflict (execution_id, life, name, occurrence) do nothing
        returning completed_at
      )
      select ${micros('recorded.completed_at')} || case when target.current then '' else ' stale' end
        || case when target.cancelling then ' cancelling' else '' end
        as recorded
      from target left join recorded on true`,

    /**
     * Waits for a transaction that has written this entry and whose end is in doubt, and is rolled back
     * itself. Safe: the primary key makes it wait, as above; it leaves nothing.
     */
    awaitTransaction: `
      insert into ${schema}.steps
        (execution_id, life, name, occurrence, position, kind, attempt, started_at)
      select e.id, e.created_at, $3::text, $4::int4, 0, 'transaction', 0, ${now}
      from ${schema}.executions e
      where e.id = $1::uuid and ${born('e')} = $2::int8
      on conflict (execution_id, life, name, occurrence) do nothing`,

    /**
     * The outcome of a whole-request transaction, as its last statement. Safe: as statements.complete,
     * and the row's lock is held until the commit, so that of two attempts one commits and the other
     * finds the execution done and is rolled back. One column; no row and null as above.
     */
    completeInTransaction: `
      with input (id, born, attempt, status, headers, body, retention) as (
        values ($1::uuid, $2::int8, $3::int4, $4::int2, decode($5::text, 'base64'),
          decode($6::text, 'base64'), $7::int8)
      ),
      ${clock},
      target as (
        select e.id from input join ${schema}.executions e on e.id = input.id and ${born('e')} = input.born
      ),
      done as (
        update ${schema}.executions e
        set status = 'done', response_status = input.status, response_headers = input.headers,
          response_body = input.body, completed_at = clock.now,
          expires_at = clock.now + ${ms('input.retention')}
        from input, clock
        where e.id = input.id and ${born('e')} = input.born and e.status <> 'done'
          and (not e.giving_up or e.attempt = input.attempt)
        returning e.awaited, e.id, e.input is not null as wakes, e.waiters
      ),
      ${ended('done')}
      select done.awaited from target left join done on true`,
  }
}
