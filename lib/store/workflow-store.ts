/** Starts, suspends, signals and cancels executions that outlive a request: workflows and calls of objects. */

import { runInTransaction } from './database/app-transaction.ts'
import { toBuffer, toBufferOrNull } from './database/buffers.ts'
import type { Database } from './database/database.ts'
import { column, type Element, PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { RunStatement } from './database/transaction-host.ts'
import type { AttemptRef, ExecutionKind } from './execution-store.ts'
import { GroupCommit } from './group-commit.ts'
import { type Advance, toAdvance } from './queue-store.ts'
import {
  SIGNALS_AT_ONCE,
  type WorkflowStatements,
  workflowStatements,
} from './sql/workflow-statements.ts'
import type { RecordResult, StepId } from './step-store.ts'

/** An execution to be created. */
export interface NewExecution {
  id: string
  scope: string
  key: string
  kind: ExecutionKind
  name: string
  version: string | null
  fingerprint: Buffer
  input: Buffer
  /** The id of the execution that starts it. */
  parent: string | null
  /** The parent's incarnation if the outcome is kept for the parent until that has ended or journaled it; or null. */
  parentIncarnation: string | null
  /** The queue whose limits it runs under, and the key within the queue. */
  queue: string | null
  lane: string | null
  /** The name of the code that can run it: a workflow's name and version. */
  handler: string
  /** Workers park the execution after this many attempts. */
  maxAttempts: number
  /** From 0 to 9; the highest runs first. */
  priority: number
  delayMs: number
  /** The time limit of the whole execution, in ms; null for none. */
  timeoutMs: number | null
  /** Whether this process leases it and runs it at once. */
  runsHere: boolean
}

/** The first attempt of a new execution, or what is known of the existing one. */
export type StartResult =
  // mayBegin: whether its queue, if any, has let it in, or may do so before anything else ends.
  | { kind: 'started'; ref: AttemptRef; at: string; mayBegin: boolean }
  | { kind: 'found'; fingerprint: Buffer; expired: boolean }

/** A request to suspend an attempt. */
export interface Suspension extends AttemptRef {
  /** The count of arrived events when the attempt last read them. */
  inbox: number
  /** When the execution resumes by itself, in microseconds since 1970; null: only when an event arrives. */
  due: string | null
  /** The ids of the executions whose results it waits for. */
  awaits: readonly string[]
  /** Whether it waits for a signal or a time as well. */
  listens: boolean
}

/** The new life of an execution. */
export interface Continuation extends AttemptRef {
  /** The encoded input. */
  input: Buffer
  /** Workers park it after this many attempts. */
  maxAttempts: number
  /** The time limit of the new life, in ms; null for none. */
  timeoutMs: number | null
}

/** Whether an attempt was suspended. */
export type SuspendResult =
  | { kind: 'suspended' }
  /** Not suspended, because an event has arrived meanwhile: read the events again. */
  | { kind: 'news'; inbox: number; cancelling: boolean }
  | { kind: 'superseded' }

/** A signal that was sent and that no journal entry has consumed. */
export interface PendingSignal {
  sender: string
  value: Buffer | null
}

/** The journal entry that consumes a signal. */
export interface SignalRecord extends AttemptRef, StepId {
  position: number
  output: Buffer | null
  tookMs: number
  /** The signal's name, and the id of its sender. */
  signal: string
  sender: string
}

/** Reads and writes executions that outlive a request; steps and outcomes have stores of their own. */
export class WorkflowStore {
  readonly #db: Database
  readonly #sql: WorkflowStatements
  readonly #owner: string
  readonly #leaseMs: number
  /** Called when an execution that was cancelled has left its queue. */
  onAdvance: (advance: Advance) => void = () => {}
  readonly #starts: GroupCommit<NewExecution, StartResult | null>
  readonly #queuedStarts: GroupCommit<NewExecution, StartResult | null>
  readonly #suspensions: GroupCommit<Suspension, SuspendResult>
  readonly #subscriptions: GroupCommit<{ id: string; waiter: string }, null>

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   * @param leaseMs how long after the start workers check whether the owner has died, in ms
   */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = workflowStatements(`"${schema}"`)
    this.#owner = owner
    this.#leaseMs = leaseMs
    const { timeoutMs } = db
    const starts = (sql: string) =>
      new GroupCommit<NewExecution, StartResult | null>(
        (batch, lockMs) => this.#start(sql, batch, lockMs),
        timeoutMs,
        { sizeOf: ({ input }) => input.length },
      )
    this.#starts = starts(this.#sql.start)
    this.#queuedStarts = starts(this.#sql.startQueued)
    this.#suspensions = new GroupCommit((batch, lockMs) => this.#suspend(batch, lockMs), timeoutMs)
    this.#subscriptions = new GroupCommit(
      (batch, lockMs) => this.#subscribe(batch, lockMs),
      timeoutMs,
    )
  }

  /** Creates an execution, or finds the existing one; null if it was created or deleted at the same time: try again. */
  start(start: NewExecution): Promise<StartResult | null> {
    return withStoreErrors((start.queue ? this.#queuedStarts : this.#starts).run(start))
  }

  /**
   * Creates an execution inside a transaction of the app; it starts when that commits.
   * @returns the fingerprint of the existing execution; null if there was none
   */
  async startInTransaction(run: RunStatement, start: NewExecution): Promise<Buffer | null> {
    for (;;) {
      const found = await this.#startIn(run, start)
      if (found === 'expired') await run(this.#sql.deleteIfExpired, [start.id])
      else if (found !== 'unseen') return found === null ? null : Buffer.from(found, 'base64')
    }
  }

  async #startIn(run: RunStatement, start: NewExecution): Promise<string | null> {
    return (await runInTransaction(run, this.#sql.startInTransaction, [
      start.id,
      start.scope,
      start.key,
      start.kind,
      start.name,
      start.version,
      start.fingerprint.toString('base64'),
      start.input.toString('base64'),
      start.parent,
      start.queue,
      start.lane,
      start.handler,
      String(start.maxAttempts),
      String(start.priority),
      String(start.delayMs),
      start.timeoutMs === null ? null : String(start.timeoutMs),
      start.parentIncarnation,
    ])) as string | null
  }

  /** Deletes the execution if it is done, has expired, and no other one still wants its outcome. */
  async deleteIfExpired(id: string): Promise<void> {
    await withStoreErrors(this.#db.query(this.#sql.deleteIfExpired, [id]))
  }

  /** Suspends an execution, unless an event has arrived meanwhile. */
  suspend(suspension: Suspension): Promise<SuspendResult> {
    return withStoreErrors(this.#suspensions.run(suspension))
  }

  /** Begins a new life of an execution, unless the attempt is not the current one or is being cancelled. */
  async continueAs(continuation: Continuation): Promise<'continued' | 'superseded' | 'cancelling'> {
    const { id, incarnation, attempt, input, maxAttempts, timeoutMs } = continuation
    const bytes = new PgArray('bytea', [input])
    const values = [id, incarnation, attempt, this.#owner, bytes, maxAttempts, timeoutMs]
    const [row] = await withStoreErrors(this.#db.query(this.#sql.continueAs, values))
    if (!row) return 'superseded'
    return row[0] ? 'cancelling' : 'continued'
  }

  /** Stores a signal. @returns whether the execution exists and has not ended */
  async sendSignal(
    id: string,
    name: string,
    sender: string,
    value: Buffer | null,
  ): Promise<boolean> {
    const values = [id, name, sender, new PgArray('bytea', [value])]
    return (await withStoreErrors(this.#db.query(this.#sql.sendSignal, values))).length > 0
  }

  /**
   * Reads the pending signals of one name in the order of their arrival, a few at a time.
   * @param after the sender of the last one that was read before; null to begin with the first
   * @returns the next ones, and whether there may be more
   */
  async readPendingSignals(
    id: string,
    name: string,
    after: string | null = null,
  ): Promise<{ signals: PendingSignal[]; hasMore: boolean }> {
    const values = [id, name, after]
    const rows = await withStoreErrors(this.#db.query(this.#sql.readPendingSignals, values))
    const signals = rows.map(([sender, value]) => ({
      sender: sender as string,
      value: toBufferOrNull(value),
    }))
    return { signals, hasMore: rows.length === SIGNALS_AT_ONCE }
  }

  /** Writes the journal entry of a signal, unless the signal is consumed or the entry exists. */
  async consumeSignal(record: SignalRecord): Promise<RecordResult> {
    const { id, incarnation, attempt, name, occurrence, position, output, signal, sender } = record
    const [row] = await withStoreErrors(
      this.#db.query(this.#sql.consumeSignal, [
        id,
        incarnation,
        attempt,
        name,
        occurrence,
        position,
        new PgArray('bytea', [output]),
        signal,
        sender,
        Math.round(record.tookMs),
        this.#owner,
      ]),
    )
    const [won, current, cancelling, at] = row ?? [false, false, false, '']
    return {
      recorded: won as boolean,
      current: current as boolean,
      cancelling: cancelling as boolean,
      at: at as string,
    }
  }

  /** Registers `waiter` to be woken when the execution ends. Has no effect if it has ended already. */
  async subscribeToEnd(id: string, waiter: string): Promise<void> {
    await withStoreErrors(this.#subscriptions.run({ id, waiter }))
  }

  /** Cancels an execution and its children. @returns the ids of those that are being cancelled */
  async cancel(id: string): Promise<string[]> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.cancel, [id]))
    for (const [marked, ...advance] of rows) {
      if (marked === null) this.onAdvance(toAdvance(advance))
    }
    return rows.flatMap(([marked]) => (marked === null ? [] : [marked as string]))
  }

  async #start(
    sql: string,
    batch: NewExecution[],
    lockMs: number | null,
  ): Promise<(StartResult | null)[]> {
    // Sorted by id, as the statement requires, and each id once.
    const first = new Map<string, NewExecution>()
    for (const start of batch) if (!first.has(start.id)) first.set(start.id, start)
    const starts = [...first.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
    const text = (pick: (start: NewExecution) => Element) => column('text', starts, pick)
    const rows = await this.#db.query(sql, [
      column('uuid', starts, (s) => s.id),
      text((s) => s.scope),
      text((s) => s.key),
      text((s) => s.kind),
      text((s) => s.name),
      text((s) => s.version),
      column('bytea', starts, (s) => s.fingerprint),
      column('bytea', starts, (s) => s.input),
      column('uuid', starts, (s) => s.parent),
      text((s) => s.queue),
      text((s) => s.lane),
      text((s) => s.handler),
      column('int4', starts, (s) => s.maxAttempts),
      column('int2', starts, (s) => s.priority),
      column('int8', starts, (s) => s.delayMs),
      column('int8', starts, (s) => s.timeoutMs),
      column('bool', starts, (s) => s.runsHere),
      this.#owner,
      this.#leaseMs,
      // Their order of arrival.
      column('int4', starts, (s) => batch.indexOf(s)),
      lockMs,
      column('int8', starts, (s) => s.parentIncarnation),
    ])
    const results = new Map<string, StartResult | null>()
    for (const [n, incarnation, fingerprint, expired, at, place] of rows) {
      const { id } = starts[(n as number) - 1] as NewExecution
      results.set(id, toStarted(id, { incarnation, fingerprint, expired, at, place }))
    }
    return batch.map((start) => {
      const result = results.get(start.id) ?? null
      const { fingerprint } = first.get(start.id) as NewExecution
      if (first.get(start.id) === start || result?.kind !== 'started') return result
      return { kind: 'found', fingerprint, expired: false }
    })
  }

  async #suspend(batch: Suspension[], lockMs: number | null): Promise<SuspendResult[]> {
    const rows = await this.#db.query(this.#sql.suspend, [
      column('uuid', batch, (s) => s.id),
      column('int8', batch, (s) => s.incarnation),
      column('int4', batch, (s) => s.attempt),
      column('int4', batch, (s) => s.inbox),
      column('int8', batch, (s) => s.due),
      this.#owner,
      lockMs,
      // An array literal: PostgreSQL has no arrays of arrays of different lengths.
      column('text', batch, ({ awaits }) => (awaits.length > 0 ? `{${awaits.join(',')}}` : null)),
      column('bool', batch, (s) => s.listens),
    ])
    const results = new Array<SuspendResult>(batch.length)
    for (const [n, suspended, inbox, cancelling, current] of rows) {
      results[(n as number) - 1] = suspended
        ? { kind: 'suspended' }
        : current
          ? { kind: 'news', inbox: inbox as number, cancelling: cancelling as boolean }
          : { kind: 'superseded' }
    }
    return results
  }

  async #subscribe(
    batch: { id: string; waiter: string }[],
    lockMs: number | null,
  ): Promise<null[]> {
    await this.#db.query(this.#sql.subscribeToEnd, [
      column('uuid', batch, (s) => s.id),
      column('uuid', batch, (s) => s.waiter),
      lockMs,
    ])
    return batch.map(() => null)
  }
}

function toStarted(
  id: string,
  {
    incarnation,
    fingerprint,
    expired,
    at,
    place,
  }: Record<'incarnation' | 'fingerprint' | 'expired' | 'at' | 'place', unknown>,
): StartResult | null {
  if (incarnation) {
    return {
      kind: 'started',
      ref: { id, incarnation: incarnation as string, attempt: 1 },
      at: at as string,
      mayBegin: place === null || place === 'in' || place === 'queue',
    }
  }
  if (!fingerprint) return null
  const found = toBuffer(fingerprint as Uint8Array)
  return { kind: 'found', fingerprint: found, expired: expired as boolean }
}
