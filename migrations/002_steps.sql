-- Migration 2: the journal.
--
--   steps   one row for each recorded step of an execution: its output, or its error. Written once.
--           A new attempt reads all of them at once and runs only the steps that have no row.
--
-- A row with completed_at null is an intent: it is written before a step that must run at most once, and
-- completed, once, with the step's result.

create table pawl.steps (
  execution_id uuid not null,
  -- The execution's created_at, which identifies its incarnation. An expired execution that is claimed again
  -- has another one, so that a process of the former incarnation cannot write into the new journal.
  life         timestamptz not null,
  name         text not null,
  -- Numbers the steps under one name from 1. Negative: the compensation of the step with that number.
  occurrence   integer not null,
  -- The order in which the steps were recorded; they are replayed in this order.
  position     integer not null,
  -- step, transaction, compensation, or giving-up (the failure that compensations run for)
  kind         text not null,
  -- Encoded as pawl.readable_json describes. Null for undefined.
  output       bytea,
  -- The encoded error of a step that failed and is not retried.
  error        bytea,
  -- The number of the attempt that recorded it.
  attempt      integer not null,
  started_at   timestamptz not null,
  completed_at timestamptz,
  primary key (execution_id, life, name, occurrence)
);

-- Whether an attempt has given up: compensations run, and only the current attempt may complete the execution.
alter table pawl.executions add column giving_up boolean not null default false;

-- The SQL interface to the journal: query this view, not the table.
create view pawl.step_log as
select
  s.execution_id,
  e.scope,
  e.key,
  e.name as execution_name,
  s.position,
  s.name,
  abs(s.occurrence) as occurrence,
  s.kind,
  case when s.completed_at is null then 'begun'
    when s.error is not null then 'failed' else 'done' end as status,
  pawl.readable_json(s.output) as output,
  pawl.readable_json(s.error) as error,
  s.attempt,
  s.started_at,
  s.completed_at,
  s.completed_at - s.started_at as duration
from pawl.steps s
join pawl.executions e on e.id = s.execution_id and e.created_at = s.life;

comment on view pawl.step_log is 'Every recorded step, for people, in the order of (execution_id, position).';
comment on column pawl.step_log.kind is 'step, transaction, compensation, or giving-up (the answer that compensations run for)';
comment on column pawl.step_log.occurrence is 'counts the uses of the name; of a compensation: which of them it undoes';
comment on column pawl.step_log.status is 'done, failed (for good), or begun (at most once, and nothing more is known)';
comment on column pawl.step_log.output is 'what the step gave, without what JSON cannot tell (a Date is a string)';
comment on column pawl.step_log.attempt is 'the attempt that recorded it';
