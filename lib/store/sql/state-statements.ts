/** The statements that read and change the keyed state of objects. */

import { sqlFragments } from './fragments.ts'

/** The SQL texts by name. They follow the rules of ExecutionStatements. */
export type StateStatements = ReturnType<typeof stateStatements>

/** @param schema the schema's name, quoted as an identifier */
export function stateStatements(schema: string) {
  const { batchClock, incarnation, toMicros, milliseconds } = sqlFragments(schema)
  return {
    /** All values under a key, from one snapshot. Safe: only reads. */
    read: `
      select name, value from ${schema}.state
      where object = $1::text and key = $2::text
      order by name`,

    /**
     * Changes state and writes the journal entry of each change: both, or neither. Safe: the primary key of the
     * journal lets one entry win, and only the winner changes state, so that a repeated change takes effect
     * once. Only the current attempt may change state, checked under the execution's lock: a stale process cannot
     * overwrite what later calls for the key have written. Journal entries are inserted in the order of their
     * primary key, then the rows of state in the order of theirs, so that overlapping batches cannot deadlock.
     */
    change: `
      with ${batchClock('$13')},
      input as (
        select * from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::int4[], $6::int4[],
            $7::int8[], $8::text[], $9::text[], $10::text[], $11::bytea[])
          with ordinality as t (id, incarnation, attempt, entry, occurrence, position, took, object, key, name,
            value, n)
      ),
      target as (
        select input.*, e.created_at, e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${incarnation('e')} = input.incarnation
        cross join clock
        where e.status = 'running' and e.owner = $12::uuid and e.attempt = input.attempt
        order by e.id
        for share of e
      ),
      recorded as (
        insert into ${schema}.steps
          (execution_id, life, name, occurrence, position, kind, attempt, started_at, completed_at)
        select id, created_at, entry, occurrence, position, 'state', attempt,
          clock.now - ${milliseconds('took')}, clock.now
        from target, clock
        order by id, entry, occurrence
        on conflict (execution_id, life, name, occurrence) do nothing
        returning execution_id as id, name as entry, occurrence
      ),
      applied as (
        select target.* from target join recorded using (id, entry, occurrence)
      ),
      written as (
        insert into ${schema}.state (object, key, name, value, updated_at)
        select object, key, name, value, clock.now from applied, clock
        where value is not null
        order by object, key, name
        on conflict (object, key, name) do update
          set value = excluded.value, updated_at = excluded.updated_at
      ),
      deleted as (
        delete from ${schema}.state s using applied
        where applied.value is null
          and s.object = applied.object and s.key = applied.key and s.name = applied.name
      )
      select target.n::int4, recorded.id is not null, target.cancelling, ${toMicros('clock.now')}::text
      from target
      cross join clock
      left join recorded using (id, entry, occurrence)`,
  }
}
