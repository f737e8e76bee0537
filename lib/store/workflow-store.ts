import type { Database } from './database/database.ts'
import { runIn } from './database/app-transaction.ts'
import { toBuffer, toBytes, translate } from './database/store-errors.ts'
import type { RunStatement } from './database/transaction-host.ts'
import { column, type Element, PgArray } from './database/pg-array.ts'
import { GroupCommit } from './group-commit.ts'
import { type WorkflowStatements, workflowStatements } from './sql/workflow-statements.ts'
import type { Recorded, StepName } from './step-store.ts'
import { type AttemptRef, DUE, type ExecutionKind, type Outcome } from './execution-store.ts'

/** An execution to be started. */
export interface Start {
  id: string
  scope: string
  key: string
  kind: ExecutionKind
  name: string
  version: string | null
  fingerprint: Buffer
  input: Buffer
  /** The execution that starts it. */
  parent: string | null
  queue: string | null
  lane: string | null
  /** What can run it. */
  handler: string
  /** After how many attempts workers give up. */
  attempts: number
  /** From 0 to 9, the highest first. */
  priority: number
  delayMs: number
  /** How long it may take in all, in ms; null: for ever. */
  timeoutMs: number | null
  /** Whether this process runs it at once. */
  runs: boolean
}

/** What became of a start. */
export type Started =
  | { kind: 'started'; ref: AttemptRef; at: string }
  | { kind: 'found'; fingerprint: Buffer; expired: boolean }

/** An attempt that wants to sleep. */
export interface Suspension extends AttemptRef {
  /** What it had seen of its inbox when it last looked. */
  inbox: number
  /** When it goes on by itself, in microseconds since 1970; null: when something arrives. */
  due: string | null
}

export type Suspended =
  | { kind: 'suspended' }
  /** Something has arrived: look again. */
  | { kind: 'news'; inbox: number; cancelling: boolean }
  | { kind: 'superseded' }

/** A signal that no journal entry has taken. */
export interface Signal {
  sender: string
  value: Buffer | null
}

/** The journal entry of a signal. */
export interface SignalRecord extends AttemptRef, StepName {
  position: number
  output: Buffer | null
  tookMs: number
  /** The name it was sent under, and by whom. */
  signal: string
  sender: string
}

/** What is known of an execution. */
export interface Description {
  kind: ExecutionKind
  scope: string
  key: string
  name: string
  version: string | null
  status: 'running' | 'interrupted' | 'waiting' | 'released' | 'unknown' | 'parked' | 'done'
  attempt: number
  cancelling: boolean
  lastError: Buffer | null
  outcome: Outcome | null
  /** In microseconds since 1970. */
  createdAt: string
  completedAt: string | null
}

/** What workflows ask of Postgres beyond steps and outcomes. */
export class WorkflowStore {
  readonly #db: Database
  readonly #sql: WorkflowStatements
  readonly #channel: string
  readonly #owner: string
  readonly #leaseMs: number
  readonly #starts = new GroupCommit<Start, Started | null>((batch) => this.#start(batch), {
    weigh: ({ input }) => input.length,
  })
  readonly #suspensions = new GroupCommit<Suspension, Suspended>((batch) => this.#suspend(batch))
  readonly #subscriptions = new GroupCommit<{ id: string; waiter: string }, null>((batch) =>
    this.#subscribe(batch),
  )

  /** As WakeupStore's. */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = workflowStatements(`"${schema}"`)
    this.#channel = schema
    this.#owner = owner
    this.#leaseMs = leaseMs
  }

  /** Starts an execution, or finds the one that is there; null if it vanished in between. */
  start(start: Start): Promise<Started | null> {
    return translate(this.#starts.run(start))
  }

  /**
   * Starts an execution when a transaction of the app's commits.
   * @returns the fingerprint of the one that is there; null if there was none
   */
  async startIn(run: RunStatement, start: Start): Promise<Buffer | null> {
    for (;;) {
      const found = await this.#startIn(run, start)
      if (found === 'expired') await run(this.#sql.forget, [start.id])
      else if (found !== 'unseen') return found === null ? null : Buffer.from(found, 'base64')
    }
  }

  async #startIn(run: RunStatement, start: Start): Promise<string | null> {
    return (await runIn(run, this.#sql.startInTransaction, [
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
      String(start.attempts),
      String(start.priority),
      String(start.delayMs),
      start.timeoutMs === null ? null : String(start.timeoutMs),
      this.#channel,
      DUE,
    ])) as string | null
  }

  /** Deletes an execution whose outcome has expired. */
  async forget(id: string): Promise<void> {
    await translate(this.#db.query(this.#sql.forget, [id]))
  }

  /** Puts an execution to sleep, unless something has arrived for it. */
  suspend(suspension: Suspension): Promise<Suspended> {
    return translate(this.#suspensions.run(suspension))
  }

  /** @returns whether there is such an execution, and it has not ended */
  async signal(id: string, name: string, sender: string, value: Buffer | null): Promise<boolean> {
    const values = [id, name, sender, new PgArray('bytea', [value])]
    return (await translate(this.#db.query(this.#sql.signal, values))).length > 0
  }

  async unread(id: string, name: string): Promise<Signal[]> {
    const rows = await translate(this.#db.query(this.#sql.unread, [id, name]))
    return rows.map(([sender, value]) => ({ sender: sender as string, value: toBytes(value) }))
  }

  /** Records a signal that has arrived, unless it is taken or the entry is recorded. */
  async takeSignal(record: SignalRecord): Promise<Recorded> {
    const { id, born, attempt, name, occurrence, position, output, signal, sender } = record
    const [row] = await translate(
      this.#db.query(this.#sql.takeSignal, [
        id,
        born,
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
      won: won as boolean,
      current: current as boolean,
      cancelling: cancelling as boolean,
      at: at as string,
    }
  }

  /** Wakes `waiter` when the execution has ended; one that has ended wakes nobody. */
  async subscribe(id: string, waiter: string): Promise<void> {
    await translate(this.#subscriptions.run({ id, waiter }))
  }

  /** @returns the ids of those that were asked to end: this one, and what it has started */
  async cancel(id: string): Promise<string[]> {
    const rows = await translate(this.#db.query(this.#sql.cancel, [id]))
    return rows.map(([id]) => id as string)
  }

  async describe(id: string): Promise<Description | null> {
    const [row] = await translate(this.#db.query(this.#sql.describe, [id]))
    if (!row) return null
    const [kind, scope, key, name, version, status, attempt, cancelling, lastError] = row
    const [code, headers, body, createdAt, completedAt] = row.slice(9)
    return {
      kind: kind as ExecutionKind,
      scope: scope as string,
      key: key as string,
      name: name as string,
      version: version as string | null,
      status: status as Description['status'],
      attempt: attempt as number,
      cancelling: cancelling as boolean,
      lastError: toBytes(lastError),
      outcome:
        status === 'done'
          ? {
              status: code as number,
              headers: toBuffer(headers as Uint8Array),
              body: toBytes(body),
            }
          : null,
      createdAt: createdAt as string,
      completedAt: completedAt as string | null,
    }
  }

  async #start(batch: Start[]): Promise<(Started | null)[]> {
    // In the order of their ids, as the statement promises, and each id once.
    const first = new Map<string, Start>()
    for (const start of batch) if (!first.has(start.id)) first.set(start.id, start)
    const starts = [...first.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
    const text = (pick: (start: Start) => Element) => column('text', starts, pick)
    const rows = await this.#db.query(this.#sql.start, [
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
      column('int4', starts, (s) => s.attempts),
      column('int2', starts, (s) => s.priority),
      column('int8', starts, (s) => s.delayMs),
      column('int8', starts, (s) => s.timeoutMs),
      column('bool', starts, (s) => s.runs),
      this.#owner,
      this.#leaseMs,
      // In the order in which they were asked for.
      column('int4', starts, (s) => batch.indexOf(s)),
    ])
    const results = new Map<string, Started | null>()
    for (const [n, born, fingerprint, expired, at] of rows) {
      const { id } = starts[(n as number) - 1] as Start
      results.set(id, toStarted(id, { born, fingerprint, expired, at }))
    }
    return batch.map((start) => {
      const result = results.get(start.id) ?? null
      const { fingerprint } = first.get(start.id) as Start
      if (first.get(start.id) === start || result?.kind !== 'started') return result
      return { kind: 'found', fingerprint, expired: false }
    })
  }

  async #suspend(batch: Suspension[]): Promise<Suspended[]> {
    const rows = await this.#db.query(this.#sql.suspend, [
      column('uuid', batch, (s) => s.id),
      column('int8', batch, (s) => s.born),
      column('int4', batch, (s) => s.attempt),
      column('int4', batch, (s) => s.inbox),
      column('int8', batch, (s) => s.due),
      this.#owner,
    ])
    const results = new Array<Suspended>(batch.length)
    for (const [n, suspended, inbox, cancelling, current] of rows) {
      results[(n as number) - 1] = suspended
        ? { kind: 'suspended' }
        : current
          ? { kind: 'news', inbox: inbox as number, cancelling: cancelling as boolean }
          : { kind: 'superseded' }
    }
    return results
  }

  async #subscribe(batch: { id: string; waiter: string }[]): Promise<null[]> {
    await this.#db.query(this.#sql.subscribe, [
      column('uuid', batch, (s) => s.id),
      column('uuid', batch, (s) => s.waiter),
    ])
    return batch.map(() => null)
  }
}

function toStarted(
  id: string,
  { born, fingerprint, expired, at }: Record<'born' | 'fingerprint' | 'expired' | 'at', unknown>,
): Started | null {
  if (born) {
    return { kind: 'started', ref: { id, born: born as string, attempt: 1 }, at: at as string }
  }
  if (!fingerprint) return null
  const found = toBuffer(fingerprint as Uint8Array)
  return { kind: 'found', fingerprint: found, expired: expired as boolean }
}
