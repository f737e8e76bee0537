/** Compares the counts of queues with their executions, again and again: they must agree in every snapshot. */
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

/**
 * The counts that differ from the places, and the limits that are exceeded. One statement, and so one snapshot. The
 * rate is compared at the time of the snapshot; executions that begin later are not in it.
 */
const WRONG = `
  with places as (
    select queue, lane,
      count(*) filter (where place in ('in', 'lent') and lender is null)::int as held,
      count(*) filter (where place = 'queue')::int as waiting,
      count(*) filter (where place in ('in', 'queue', 'lent') and not (lender is not null and lends_key))::int as key_held,
      count(*) filter (where place = 'key')::int as key_waiting
    from pawl.wakeups where queue is not null group by queue, lane
  ),
  queues as (
    select queue, sum(held)::int as held, sum(waiting)::int as waiting from places group by queue
  )
  select 'queue ' || q.name as what, q.held, q.waiting, coalesce(p.held, 0) as places, coalesce(p.waiting, 0) as waits
  from pawl.queues q left join queues p on p.queue = q.name
  where q.is_limited and (q.held <> coalesce(p.held, 0) or q.waiting <> coalesce(p.waiting, 0) or q.held > q.concurrency)
  union all
  select 'lane ' || l.queue || ' ' || l.key, l.held, l.waiting, coalesce(p.key_held, 0), coalesce(p.key_waiting, 0)
  from pawl.lanes l left join places p on p.queue = l.queue and p.lane = l.key
  where l.held <> coalesce(p.key_held, 0) or l.waiting <> coalesce(p.key_waiting, 0) or l.held > l.slots
  union all
  select 'rate of ' || name, pawl.rate_used(rate, pawl.now() - rate_ms * interval '1 millisecond'), rate_limit, 0, 0
  from pawl.queues
  where pawl.rate_used(rate, pawl.now() - rate_ms * interval '1 millisecond') > rate_limit
  union all
  select 'a place of ' || e.name || ' that is ' || e.status, null, null, null, null
  from pawl.wakeups w join pawl.executions e on e.id = w.execution_id
  where w.place is not null and e.status in ('done', 'parked', 'unknown')
  union all
  select 'nobody has the place lent by ' || w.execution_id, null, null, null, null
  from pawl.wakeups w
  where w.place = 'lent' and not exists (select from pawl.wakeups b where b.lender = w.execution_id)
  union all
  select 'a place twice: lent by ' || b.lender, null, null, null, null
  from pawl.wakeups b left join pawl.wakeups w on w.execution_id = b.lender
  where b.lender is not null and w.place is distinct from 'lent'`

const PAUSE_MS = 150

/** Watches the queues until it is stopped. */
export class Monitor {
  readonly #pool: pg.Pool
  #isStopped = false
  readonly #running: Promise<void>
  /** What was wrong when it was first seen, by what it is about. */
  readonly wrong = new Map<string, string>()
  /** How many snapshots were compared, and what was seen in them. */
  snapshots = 0
  borrowed = 0
  deepest = 0

  constructor(databaseUrl: string) {
    this.#pool = new pg.Pool({ connectionString: databaseUrl, max: 1 })
    this.#pool.on('error', () => {})
    this.#running = this.#watch()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#running
    await this.#pool.end()
  }

  async #watch(): Promise<void> {
    while (!this.#isStopped) {
      await this.#look()
      await sleep(PAUSE_MS)
    }
  }

  async #look(): Promise<void> {
    try {
      const { rows } = await this.#pool.query(WRONG)
      for (const { what, ...counts } of rows) {
        const seen = `${new Date().toISOString()} ${JSON.stringify(counts)}`
        if (!this.wrong.has(what)) this.wrong.set(what, seen)
      }
      const more = await this.#pool.query(
        `select count(*) filter (where lender is not null)::int as borrowed,
           count(*) filter (where place in ('key', 'queue'))::int as waiting from pawl.wakeups`,
      )
      this.borrowed += more.rows[0].borrowed
      this.deepest = Math.max(this.deepest, more.rows[0].waiting)
      this.snapshots++
    } catch (error) {
      // PostgreSQL is away. An error of the statement itself shows in the number of snapshots.
      if ((error as { code?: string }).code?.startsWith('42')) throw error
    }
  }
}
