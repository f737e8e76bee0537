-- Migration 1: keyed requests.
--
-- Two tables:
--
--   executions   one row for each idempotent unit of work, named by (scope, key). Its primary key is
--                derived from that name, so claiming, reading and completing an execution are one
--                primary-key access each, and the name needs no index of its own.
--   processes    one row for each running process of the app. Its heartbeat is the lease of every
--                execution the process owns: an owner whose row has expired or was deleted counts as dead.
--
-- Correctness rests on one assignment of the outcome: `status` becomes 'done' once, under the row's lock,
-- and never changes again. Owners, attempts and clocks only decide which process should run an execution now.
--
-- The schema's name is an option of Pawl. The migrator replaces the schema's name before each dot in this
-- file and nothing else, so this file can also be run as it is.

-- The database's clock. Every time comes from this function, so that a test can replace it and
-- let a week pass in a second.
create function pawl.now() returns timestamptz
  language sql volatile parallel safe
  as 'select clock_timestamp()';

create table pawl.processes (
  id         uuid primary key,
  -- A stable name given by the app. A process that starts under it deletes its predecessor's row.
  instance   text,
  host       text not null,
  pid        integer not null,
  version    text not null,
  started_at timestamptz not null,
  heartbeat  timestamptz not null,
  expires_at timestamptz not null
);

create table pawl.executions (
  -- The first 128 bits of SHA-256 over scope, a separator and key, marked as a UUIDv8.
  id               uuid primary key,
  scope            text not null,
  key              text not null,
  kind             text not null,
  -- For people: the request's method and path.
  name             text not null,
  -- A version byte, then the SHA-256 of the parts of a request that make two requests the same.
  fingerprint      bytea not null,
  -- running    a process owns it; interrupted if that process is dead
  -- released   the last attempt ended without an outcome; a new attempt may begin
  -- unknown    the last attempt ended without an outcome, and its effects are unknown
  -- parked     workers have given up; a client's retry, or a person, may still resume it
  -- done       the outcome is recorded
  status           text not null check (status in ('running', 'released', 'unknown', 'parked', 'done')),
  owner            uuid,
  attempt          integer not null,
  -- The stored request, for attempts that a worker starts. Null if workers must not resume it.
  input            bytea,
  -- Whether another process waits for this execution, so that its end must send a notification.
  awaited          boolean not null default false,
  response_status  smallint,
  -- JSON in UTF-8: an array of [name, value or array of values]. Stored as bytes, because jsonb costs a
  -- fifth of the throughput, and an outcome is only ever read as a whole.
  response_headers bytea,
  -- Null in a done execution if the body was larger than maxBody, or an event stream.
  response_body    bytea,
  created_at       timestamptz not null,
  completed_at     timestamptz,
  expires_at       timestamptz not null
);

-- For retention. Not a BRIN index: once the space of deleted rows is reused, each block range holds
-- old and new rows, and none can be skipped.
create index executions_expires_at on pawl.executions (expires_at);
-- For lists by time.
create index executions_created_at on pawl.executions using brin (created_at);

-- Bytes as text for people: the text they encode, or their length if they are not UTF-8. Not parallel
-- safe: before PostgreSQL 17 catching an exception fails in a parallel query.
create function pawl.readable(bytes bytea) returns text
  language plpgsql immutable
as $$
begin
  return convert_from(bytes, 'UTF8');
exception when others then
  return '<' || length(bytes) || ' bytes, not UTF-8>';
end
$$;

-- A stored value for people: its JSON, or a JSON string that describes the value. Values are JSON in UTF-8.
-- A first byte of 1 means JSON whose member "meta" has the types that JSON lacks (a Date, a Map); a first byte
-- of 2 means encrypted. Some JSON is not valid jsonb (an escaped NUL), and must not fail a query over many rows.
create function pawl.readable_json(bytes bytea) returns jsonb
  language plpgsql immutable strict
as $$
begin
  if get_byte(bytes, 0) = 2 then
    return to_jsonb('<' || length(bytes) || ' bytes, encrypted with key '
      || convert_from(substr(bytes, 3, get_byte(bytes, 1)), 'UTF8') || '>');
  elsif get_byte(bytes, 0) = 1 then
    return convert_from(substr(bytes, 2), 'UTF8')::jsonb -> 'json';
  end if;
  return convert_from(bytes, 'UTF8')::jsonb;
exception when others then
  return to_jsonb('<' || length(bytes) || ' bytes, no jsonb>');
end
$$;

-- The SQL interface: query this view, not the tables, which may change between versions.
create view pawl.execution_log as
select
  e.id,
  e.scope,
  e.key,
  e.kind,
  e.name,
  -- The table's status, except that an execution whose owner has died shows as 'interrupted'.
  case when e.status = 'running' and not coalesce(p.expires_at > pawl.now(), false)
    then 'interrupted' else e.status end as status,
  e.attempt,
  e.owner,
  coalesce(p.expires_at > pawl.now(), false) as owner_alive,
  p.host as owner_host,
  p.pid as owner_pid,
  e.response_status,
  pawl.readable_json(e.response_headers) as response_headers,
  -- Headers and body are both encrypted, or neither is.
  case when substr(e.response_headers, 1, 1) = '\x02' then '<' || length(e.response_body) || ' bytes, encrypted>'
    else pawl.readable(e.response_body) end as response_body,
  e.status = 'done' and e.response_body is not null as body_kept,
  e.created_at,
  e.completed_at,
  coalesce(e.completed_at, pawl.now()) - e.created_at as duration,
  e.expires_at
from pawl.executions e
left join pawl.processes p on p.id = e.owner;

comment on view pawl.execution_log is 'Every execution Pawl knows, for people. One row for each (scope, key).';
comment on column pawl.execution_log.status is 'running, interrupted (its owner died), released (free to resume), unknown (nobody can know what it did), parked (workers gave up) or done';
comment on column pawl.execution_log.owner_alive is 'whether the process that runs it has a current heartbeat';
comment on column pawl.execution_log.response_headers is 'an array of [name, value or array of values]';
comment on column pawl.execution_log.response_body is 'the stored body, if it is UTF-8 text; null if none is stored';
comment on column pawl.execution_log.duration is 'from the claim to the outcome, or until now';
comment on column pawl.execution_log.expires_at is 'when retention may delete it and the key is new again';
