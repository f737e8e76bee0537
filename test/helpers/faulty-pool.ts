import pg from 'pg'
import { afterEachFile, afterEachTest } from './cleanup.ts'
import { latch } from './latch.ts'

/** What happens to a statement on its way. */
export type Mishap =
  /** Postgres carries it out, and nobody learns of it. */
  | 'lose the reply'
  /** It never arrives. */
  | 'lose the statement'
  /** It is sent once `before` has resolved, and its reply arrives once `after` has. */
  | { before?: Promise<unknown>; after?: (() => Promise<unknown>) | undefined }
  | undefined

/** A pool whose statements a test sees, holds and loses. It ends with the test file. */
export interface FaultyPool {
  pool: pg.Pool
  /** Every statement that was sent. */
  statements: string[]
}

const open = new Set<pg.Pool>()

afterEachFile(async () => {
  const pools = [...open]
  open.clear()
  await Promise.all(pools.map((pool) => pool.end()))
})

/** @param mishap asked for each statement */
export function faultyPool(
  url: string,
  mishap: (sql: string) => Mishap = () => undefined,
  max = 10,
): FaultyPool {
  const statements: string[] = []
  class Client extends pg.Client {
    // For a promise: as Pawl calls it, and as apps do.
    override query(...args: unknown[]): never {
      const [config] = args as [string | { text: string }]
      const text = typeof config === 'string' ? config : config.text
      statements.push(text)
      const query = super.query as (...args: unknown[]) => Promise<unknown>
      return send(mishap(text), () => query.apply(this, args)) as never
    }
  }
  const pool = new pg.Pool({ connectionString: url, max, Client })
  open.add(pool)
  return { pool, statements }
}

async function send(what: Mishap, query: () => Promise<unknown>): Promise<unknown> {
  if (what === 'lose the statement') throw new Error('Connection terminated unexpectedly')
  if (typeof what === 'object') await what.before
  const result = await query()
  if (typeof what === 'object') await what.after?.()
  if (what === 'lose the reply') throw new Error('Connection terminated unexpectedly')
  return result
}

/** Whether a statement is the one that does this. */
export const isStatement = {
  start: (sql: string) => sql.includes('.wakeups') && sql.includes('started as'),
  take: (sql: string) => sql.includes('skip locked') && sql.includes('judged'),
  record: (sql: string) => sql.includes('recorded as (') && sql.includes('unnest($1::uuid[]'),
  suspend: (sql: string) => sql.includes('suspended as ('),
  subscribe: (sql: string) => sql.includes('set waiters ='),
  takeSignal: (sql: string) => sql.includes('taken_at = clock.now'),
  complete: (sql: string) => sql.includes("set status = 'done'"),
  notify: (sql: string) => sql.includes('pg_notify') && !sql.includes('started as'),
  heartbeat: (sql: string) => sql.includes('set heartbeat ='),
  /** What an idle worker asks. */
  poll: (sql: string) =>
    /judged as|dead as|min\(found\.due_at\)|q\.name <> all|set checked_at|queue_mended|w\.awaits is not null and w\.execution_id >/.test(
      sql,
    ),
}

const holds = new Set<() => void>()

// A test that failed holds nothing on: its pools could not end.
afterEachTest(async () => {
  for (const release of holds) release()
  holds.clear()
})

/** Holds the first such statement: before it reaches Postgres, or its reply, when it is committed. */
export function holdFirst(is: (sql: string) => boolean, where: 'before' | 'after') {
  const reached = latch()
  const go = latch()
  holds.add(go.open)
  let done = false
  const mishap = (sql: string): Mishap => {
    if (done || !is(sql)) return undefined
    done = true
    if (where === 'after') {
      return {
        after: () => {
          reached.open()
          return go.wait
        },
      }
    }
    reached.open()
    return { before: go.wait }
  }
  return { mishap, reached: reached.wait, release: go.open }
}
