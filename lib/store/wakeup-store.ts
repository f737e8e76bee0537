/** Leases due executions to this process's workers. */

import { toBuffer } from './database/buffers.ts'
import type { Database } from './database/database.ts'
import { PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { AttemptRef, ExecutionKind } from './execution-store.ts'
import { type Advance, toAdvance } from './queue-store.ts'
import { type WakeupStatements, wakeupStatements } from './sql/wakeup-statements.ts'
import type { Deadlock } from './wait-store.ts'

/** An execution that this process leased, with what is needed to run it. */
export interface LeasedExecution extends AttemptRef {
  kind: ExecutionKind
  scope: string
  key: string
  /** The request's method and path, or the workflow's name. */
  name: string
  version: string | null
  fingerprint: Buffer
  /** The encoded input. */
  input: Buffer
  /** Counts the events that have arrived: signals, awaited outcomes, a cancellation. */
  inbox: number
  cancelling: boolean
  /** When the execution times out, in microseconds since 1970; null for never. */
  deadline: string | null
  /** Workers park the execution after this many attempts. */
  maxAttempts: number
  /** When it was leased, by the database's clock, in microseconds since 1970. */
  at: string
  /** Whether it has not run before. */
  begins: boolean
  /** Set where a wait of the execution must end with an error. */
  deadlock?: Deadlock | null
}

/** An execution that was parked, or that is being cancelled. */
export interface ExecutionSummary {
  id: string
  kind: ExecutionKind
  scope: string
  key: string
  name: string
  /** The number of its last attempt. */
  attempt: number
}

/** The due executions, sorted by what the worker does with them. */
export interface DueExecutions {
  leased: LeasedExecution[]
  /** Those that have just been parked, because they have no attempts left. */
  parked: ExecutionSummary[]
  /** Those that run in this process and are being cancelled. */
  cancelling: ExecutionSummary[]
  /** How many wakeups were examined. If as many as the limit, more may be due. */
  examined: number
  /** How many were skipped because another transaction holds their lock: examine them again at once. */
  locked: number
}

/** How many times as many wakeups as are wanted are looked at: where no other worker was in the way, and at most. */
const MIN_CROWDING = 2
const MAX_CROWDING = 8

/** Finds and leases executions that are due. */
export class WakeupStore {
  /** Called when an execution that was parked has left its queue. */
  onAdvance: (advance: Advance) => void = () => {}
  readonly #db: Database
  readonly #sql: WakeupStatements
  readonly #owner: string
  readonly #leaseMs: number
  /** How many times as many wakeups to look at, since other workers have locked some of them. */
  #crowding = MIN_CROWDING

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   * @param leaseMs how long after the lease workers check whether the owner has died, in ms
   */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = wakeupStatements(`"${schema}"`)
    this.#owner = owner
    this.#leaseMs = leaseMs
  }

  /**
   * Leases at most `limit` due executions to this process, and parks those that have no attempts left. The deaths of
   * processes are counted first.
   * @param handlers the handlers that this process can run
   * @param active the ids of the executions that this process is running
   */
  async leaseDue(
    handlers: readonly string[],
    limit: number,
    active: string[],
  ): Promise<DueExecutions> {
    const values = [
      new PgArray('text', handlers),
      limit,
      this.#owner,
      this.#leaseMs,
      new PgArray('uuid', active),
      limit * this.#crowding,
    ]
    const rows = await withStoreErrors(this.#db.query(this.#sql.leaseDue, values))
    const due: DueExecutions = { leased: [], parked: [], cancelling: [], examined: 0, locked: 0 }
    const died: string[] = []
    const exhausted: string[] = []
    for (const [group, id, attempt, incarnation, kind, scope, key, name, ...rest] of rows) {
      const summary = { id, attempt, kind, scope, key, name } as ExecutionSummary
      if (group === 'examined') {
        due.examined = attempt as number
        due.locked = rest[3] as number
      } else if (group === 'leased')
        due.leased.push(toLeasedExecution(summary, incarnation as string, rest))
      else if (group === 'cancelling') due.cancelling.push(summary)
      else (group === 'died' ? died : exhausted).push(id as string)
    }
    if (this.#adapt(due.locked > 0 && due.examined < limit) && due.examined === 0)
      return this.leaseDue(handlers, limit, active)
    if (exhausted.length > 0) due.parked = await this.#park(exhausted)
    if (died.length === 0) return due
    await withStoreErrors(this.#db.query(this.#sql.recordDeaths, [new PgArray('uuid', died)]))
    const more = await this.leaseDue(handlers, limit - due.leased.length, [
      ...active,
      ...due.leased.map(({ id }) => id),
    ])
    return {
      leased: [...due.leased, ...more.leased],
      parked: [...due.parked, ...more.parked],
      cancelling: due.cancelling,
      examined: due.examined + more.examined,
      locked: more.locked,
    }
  }

  async #park(ids: string[]): Promise<ExecutionSummary[]> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.park, [new PgArray('uuid', ids)]))
    const parked: ExecutionSummary[] = []
    for (const [id, attempt, kind, scope, key, name, ...advance] of rows) {
      if (id === null) this.onAdvance(toAdvance(advance))
      else parked.push({ id, attempt, kind, scope, key, name } as ExecutionSummary)
    }
    return parked
  }

  /** @returns whether a look at more wakeups may find some that are free */
  #adapt(isCrowded: boolean): boolean {
    const before = this.#crowding
    this.#crowding = isCrowded
      ? Math.min(before * 2, MAX_CROWDING)
      : Math.max(before / 2, MIN_CROWDING)
    return this.#crowding > before
  }

  /** The time until the next execution is due, in ms; null if none has a due time. */
  async nextDue(handlers: readonly string[]): Promise<number | null> {
    const [row] = await withStoreErrors(
      this.#db.query(this.#sql.nextDue, [new PgArray('text', handlers)]),
    )
    const ms = row?.[0] ?? null
    return ms === null ? null : Number(ms)
  }
}

function toLeasedExecution(
  summary: ExecutionSummary,
  incarnation: string,
  row: unknown[],
): LeasedExecution {
  const [version, fingerprint, input, inbox, cancelling, deadline, maxAttempts, ...late] = row
  const [at, isQueued, begins, deadlock] = late
  return {
    ...summary,
    incarnation,
    version: version as string | null,
    fingerprint: toBuffer(fingerprint as Uint8Array),
    input: toBuffer(input as Uint8Array),
    inbox: inbox as number,
    cancelling: cancelling as boolean,
    deadline: deadline as string | null,
    maxAttempts: maxAttempts as number,
    at: at as string,
    isQueued: isQueued as boolean,
    begins: begins as boolean,
    deadlock: deadlock ? JSON.parse(deadlock as string) : null,
  }
}
