/** The statements that read and record journal entries, and those that run inside a transaction of the app. */

import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type StepStatements = ReturnType<typeof stepStatements>

/** @param schema the schema's name, quoted as an identifier */
export function stepStatements(schema: string) {
  const {
    now,
    durableClock,
    batchClock,
    incarnation,
    toMicros,
    fromMicros,
    milliseconds,
    afterEnd,
  } = sqlFragments(schema)
  const columns = `execution_id, life, name, occurrence, position, kind, output, error, attempt,
          started_at, completed_at`

  /** @param guarded whether only the current attempt may write the entry */
  const record = (guarded: boolean) => `
      with ${batchClock('$13')},
      input as (
        select * from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::int4[], $6::int4[],
            $7::text[], $8::bytea[], $9::bytea[], $10::int8[], $11::bool[])
          with ordinality as t (id, incarnation, attempt, name, occurrence, position, kind, output, error,
            took, completed, n)
      ),
      target as (
        select input.*, e.created_at,
          e.status = 'running' and e.owner = $12::uuid and e.attempt = input.attempt as current,
          e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation
        cross join clock
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
          clock.now - ${milliseconds('took')}, case when completed then clock.now end
        from target, clock
        order by id, name, occurrence
        on conflict (execution_id, life, name, occurrence) do update
          set output = excluded.output, error = excluded.error, position = excluded.position,
            attempt = excluded.attempt, completed_at = excluded.completed_at
          where s.completed_at is null and excluded.completed_at is not null and s.kind = excluded.kind
        returning s.execution_id, s.name, s.occurrence
      )
      select target.n::int4, recorded.name is not null, target.current, ${toMicros('clock.now')}::text,
        target.cancelling
      from target
      cross join clock
      left join recorded on recorded.execution_id = target.id and recorded.name = target.name
        and recorded.occurrence = target.occurrence`

  return {
    /**
     * Writes a step's success, which any attempt may write. Safe: the primary key lets one insert win; a
     * concurrent one waits for it and then changes nothing, unless the existing row is the intent of this step,
     * which is completed once, under the row's lock. Entries are inserted in the order of their key, so that
     * two overlapping batches cannot deadlock. Whether the attempt is current is read from the snapshot, because
     * it only tells the attempt to stop. A done execution accepts no more entries.
     */
    record: record(false),

    /**
     * Writes what only the current attempt may write: failures and intents. Safe: as `record`; and the execution's
     * row is locked for the check, so that a takeover happens before or after, and a stale process cannot fail
     * a step of a healthy one.
     */
    recordGuarded: record(true),

    /**
     * Records the decision to give up. Safe: only the current attempt can make it, checked under the row's lock.
     * From that commit on, giving_up is set, so that no stale attempt can record a success for an execution that
     * is being compensated.
     */
    giveUp: `
      with ${durableClock},
      target as (
        update ${schema}.executions e
        set giving_up = true
        where e.id = $1::uuid and ${incarnation('e')} = $2::int8 and e.attempt = $3::int4
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
      select recorded.name is not null, ${toMicros('clock.now')}::text
      from target cross join clock left join recorded on true`,

    /**
     * Reads the journals of executions: of all entries what they are, and of as many as fit into $3 bytes what they
     * hold. Safe: only reads. `offset 0` makes the planner do one index look-up for each execution, also with outdated
     * statistics. The length of a value is known without reading it.
     */
    readJournal: `
      select n::int4, name, occurrence, kind, case when bytes = 0 or before < $3::int8 then output end,
        case when bytes = 0 or before < $3::int8 then error end, attempt, completed_at is not null,
        ${toMicros('coalesce(completed_at, started_at)')}::text, bytes::int4, bytes > 0 and before >= $3::int8
      from (
        select input.n, s.*,
          sum(s.bytes) over (order by input.n, s.position, s.completed_at, s.name, s.occurrence
            rows unbounded preceding) - s.bytes as before
        from unnest($1::uuid[], $2::int8[]) with ordinality as input (id, incarnation, n)
        join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation
        cross join lateral (
          select *, coalesce(octet_length(output), 0) + coalesce(octet_length(error), 0) as bytes
          from ${schema}.steps s where s.execution_id = e.id and s.life = e.created_at offset 0
        ) as s
      ) as entries
      order by n, position, completed_at, name, occurrence`,

    /**
     * Reads what completed entries of one execution hold. Safe: only reads, and such an entry does not change.
     */
    readEntries: `
      select s.output, s.error
      from unnest($3::text[], $4::int4[]) with ordinality as input (name, occurrence, n)
      cross join lateral (
        select s.output, s.error from ${schema}.steps s
        where s.execution_id = $1::uuid and s.life = ${fromMicros('$2::int8')} and s.name = input.name
          and s.occurrence = input.occurrence
        offset 0
      ) as s
      order by input.n`,

    /**
     * Writes the journal entry of a transaction step, as the last statement of the app's own transaction. Safe:
     * the primary key lets one transaction win; a concurrent one waits for that commit, inserts nothing, and is
     * rolled back. Because the statement goes through the app's library, its parameters are text, in the order of
     * their numbers, each used once, and its result has one column. No row: the execution is not in this database.
     * Null: the entry exists, or the execution has ended or is being compensated. Otherwise the time of writing,
     * followed by ' stale' if the attempt is not the current one, and by ' cancelling'.
     */
    recordInTransaction: `
      with input (id, incarnation, attempt, name, occurrence, position, kind, output, took) as (
        values ($1::uuid, $2::int8, $3::int4, $4::text, $5::int4, $6::int4, $7::text,
          decode($8::text, 'base64'), $9::int8)
      ),
      ${durableClock},
      target as (
        select input.*, e.created_at, e.status <> 'done' and not e.giving_up as open,
          e.status = 'running' and e.attempt = input.attempt as current, e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation
      ),
      recorded as (
        insert into ${schema}.steps (${columns})
        select id, created_at, name, occurrence, position, kind, output, null, attempt,
          clock.now - ${milliseconds('took')}, clock.now
        from target, clock
        where open
        on conflict (execution_id, life, name, occurrence) do nothing
        returning completed_at
      )
      select ${toMicros('recorded.completed_at')} || case when target.current then '' else ' stale' end
        || case when target.cancelling then ' cancelling' else '' end
        as recorded
      from target left join recorded on true`,

    /**
     * Waits until no open transaction has written this entry: its insert waits at the primary key. Safe: the caller
     * rolls it back, so it leaves no row.
     */
    awaitTransaction: `
      insert into ${schema}.steps
        (execution_id, life, name, occurrence, position, kind, attempt, started_at)
      select e.id, e.created_at, $3::text, $4::int4, 0, 'transaction', 0, ${now}
      from ${schema}.executions e
      where e.id = $1::uuid and ${incarnation('e')} = $2::int8
      on conflict (execution_id, life, name, occurrence) do nothing`,

    /**
     * Records the outcome of a whole-request transaction, as its last statement. Safe: as `complete` of
     * ExecutionStatements; and the row's lock is held until the commit, so that of two attempts one commits and
     * the other finds the execution done and is rolled back. Parameters, no row and null as in
     * recordInTransaction.
     */
    completeInTransaction: `
      with input (id, incarnation, attempt, status, headers, body, retention) as (
        values ($1::uuid, $2::int8, $3::int4, $4::int2, decode($5::text, 'base64'),
          decode($6::text, 'base64'), $7::int8)
      ),
      ${durableClock},
      target as (
        select e.id from input join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation
      ),
      done as (
        update ${schema}.executions e
        set status = 'done', response_status = input.status, response_headers = input.headers,
          response_body = input.body, completed_at = clock.now,
          expires_at = clock.now + ${milliseconds('input.retention')}
        from input, clock
        where e.id = input.id and ${incarnation('e')} = input.incarnation and e.status <> 'done'
          and (not e.giving_up or e.attempt = input.attempt)
        returning e.awaited, e.id, e.input is not null as wakes, e.waiters
      ),
      ${afterEnd('done')}
      select done.awaited from target left join done on true`,
  }
}
