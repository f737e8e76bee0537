import { fragments } from './fragments.ts'

/** The SQL of keyed state. The rules of statements.ts hold here too. */
export type StateStatements = ReturnType<typeof stateStatements>

/** @param schema the schema's name, quoted as an identifier */
export function stateStatements(schema: string) {
  const { clock, born, micros, ms } = fragments(schema)
  return {
    /** All that is kept under a key, at one moment. Safe: reads. */
    read: `
      select name, value from ${schema}.state
      where object = $1::text and key = $2::text
      order by name`,

    /**
     * Changes of state, each with its journal entry: both, or neither. Safe: the primary key of the
     * journal lets one entry win, and only that one changes anything, so that a change sent twice is made
     * once. Only the current attempt can, checked under the execution's lock: a stale process cannot
     * overwrite what others have written since its key went on to the next call. Entries go in in the order
     * of their key; the state's rows after them, each in its own key's turn.
     */
    change: `
      with ${clock},
      input as (
        select * from unnest($1::uuid[], $2::int8[], $3::int4[], $4::text[], $5::int4[], $6::int4[],
            $7::int8[], $8::text[], $9::text[], $10::text[], $11::bytea[])
          with ordinality as t (id, born, attempt, entry, occurrence, position, took, object, key, name,
            value, n)
      ),
      target as (
        select input.*, e.created_at, e.cancelling
        from input join ${schema}.executions e on e.id = input.id and ${born('e')} = input.born
        where e.status = 'running' and e.owner = $12::uuid and e.attempt = input.attempt
        order by e.id
        for share of e
      ),
      recorded as (
        insert into ${schema}.steps
          (execution_id, life, name, occurrence, position, kind, attempt, started_at, completed_at)
        select id, created_at, entry, occurrence, position, 'state', attempt,
          clock.now - ${ms('took')}, clock.now
        from target, clock
        order by id, entry, occurrence
        on conflict (execution_id, life, name, occurrence) do nothing
        returning execution_id as id, name as entry, occurrence
      ),
      made as (
        select target.* from target join recorded using (id, entry, occurrence)
      ),
      written as (
        insert into ${schema}.state (object, key, name, value, updated_at)
        select object, key, name, value, clock.now from made, clock
        where value is not null
        order by object, key, name
        on conflict (object, key, name) do update
          set value = excluded.value, updated_at = excluded.updated_at
      ),
      deleted as (
        delete from ${schema}.state s using made
        where made.value is null
          and s.object = made.object and s.key = made.key and s.name = made.name
      )
      select target.n::int4, recorded.id is not null, target.cancelling, ${micros('clock.now')}::text
      from target
      cross join clock
      left join recorded using (id, entry, occurrence)`,
  }
}
