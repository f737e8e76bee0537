/** Reads and writes journal entries, the recorded steps of executions. */

import { PawlError } from '../errors/index.ts'
import { runAppTransaction, runInTransaction } from './database/app-transaction.ts'
import { toBufferOrNull } from './database/buffers.ts'
import type { Database } from './database/database.ts'
import { column, PgArray } from './database/pg-array.ts'
import { Semaphore } from './database/semaphore.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { IsolationLevel, RunStatement, TransactionHost } from './database/transaction-host.ts'
import type { AttemptRef, Outcome } from './execution-store.ts'
import { GroupCommit } from './group-commit.ts'
import { type StepStatements, stepStatements } from './sql/step-statements.ts'

/** What a journal entry records. */
export type StepKind =
  | 'step'
  | 'transaction'
  | 'sleep'
  | 'signal'
  | 'child'
  | 'result'
  | 'state'
  | 'patch'
  | 'compensation'
  | 'giving-up'
  | 'divergence'

/** Identifies a journal entry within its execution. */
export interface StepId {
  name: string
  /** Numbers the calls under one name from 1. Negative: the compensation of the call with that number. */
  occurrence: number
}

/** A journal entry to be written. */
export interface StepRecord extends AttemptRef, StepId {
  /** The entry's place in the replay order. */
  position: number
  kind: StepKind
  /** The encoded output; null for undefined and for no output. */
  output: Buffer | null
  /** The encoded error of a step that failed and is not retried. */
  error: Buffer | null
  /** The duration of the step, in ms. */
  tookMs: number
  /** False for an intent: an entry written before an at-most-once step runs. */
  completed: boolean
  /** Whether only the current attempt may write it: true for failures and intents. */
  onlyIfCurrent: boolean
}

/** The result of writing a journal entry. */
export interface RecordResult {
  /** False if the entry exists already, the execution has ended, or this attempt may not write it. */
  recorded: boolean
  /** Whether the attempt is still the current one. */
  current: boolean
  /** Whether the execution is being cancelled. */
  cancelling: boolean
  /** The time of writing by the database's clock, in microseconds since 1970. */
  at: string
}

/** A journal entry, as stored. */
export interface JournalEntry extends StepId {
  kind: StepKind
  output: Buffer | null
  error: Buffer | null
  /** The number of the attempt that wrote it. */
  attempt: number
  /** False for an intent: an entry written before an at-most-once step runs. */
  completed: boolean
  /** When it was written, in microseconds since 1970. */
  at: string
}

/** A journal whose large entries may not have been read yet. */
export interface OpenedJournal {
  /** All entries, in replay order. */
  entries: JournalEntry[]
  /** The size of what they hold, in bytes. */
  bytes: number
  /** Those whose output and error are still to be read, with their sizes in bytes. */
  unread: { entry: JournalEntry; bytes: number }[]
}

/** How much of journals one statement reads, in bytes, and one entry more. */
const PAGE_BYTES = 8 * 1024 ** 2

/** Identifies an execution, and the incarnation under its key. */
type ExecutionRef = Pick<AttemptRef, 'id' | 'incarnation'>

/** The longest time that setTimeout takes, in ms. */
const FOREVER_MS = 2 ** 31 - 1

const REFUSED: RecordResult = { recorded: false, current: false, cancelling: false, at: '' }

/** Reads and writes the journal, on its own and inside transactions of the app. */
export class StepStore {
  readonly #db: Database
  readonly #sql: StepStatements
  readonly #owner: string
  readonly #records: GroupCommit<StepRecord, RecordResult>
  readonly #guarded: GroupCommit<StepRecord, RecordResult>
  readonly #reads: GroupCommit<ExecutionRef, OpenedJournal>
  /** Pages are read one after the other, so that other statements find a connection. */
  readonly #pages = new Semaphore(1)

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   */
  constructor(db: Database, schema: string, owner: string) {
    this.#db = db
    this.#sql = stepStatements(`"${schema}"`)
    this.#owner = owner
    this.#records = this.#group(this.#sql.record)
    this.#guarded = this.#group(this.#sql.recordGuarded)
    this.#reads = new GroupCommit((batch) => this.#readJournal(batch), db.timeoutMs)
  }

  /** Opens transactions in the database that was passed to new Pawl(). */
  get host(): TransactionHost<unknown> {
    return this.#db.host
  }

  /** Whether an open transaction of that host occupies the only connection, so that no step can be recorded. */
  blocksRecording(host: TransactionHost<unknown>): boolean {
    return host === this.#db.host && this.#db.connections === 1
  }

  /** Writes a journal entry, unless it exists. Safe to repeat. */
  record(step: StepRecord): Promise<RecordResult> {
    if (step.kind === 'giving-up') return withStoreErrors(this.#giveUp(step))
    return withStoreErrors((step.onlyIfCurrent ? this.#guarded : this.#records).run(step))
  }

  /** Reads the whole journal of an execution, in replay order. */
  async readJournal(execution: ExecutionRef): Promise<JournalEntry[]> {
    return this.completeJournal(execution, await this.openJournal(execution))
  }

  /** Reads the entries of a journal, but not yet all that the large ones hold. */
  openJournal(execution: ExecutionRef): Promise<OpenedJournal> {
    return withStoreErrors(this.#reads.run(execution))
  }

  /**
   * Reads what is missing of a journal, page by page.
   * @returns its entries
   * @throws PawlError `execution-gone` if it was deleted meanwhile
   */
  async completeJournal(
    { id, incarnation }: ExecutionRef,
    { entries, unread }: OpenedJournal,
  ): Promise<JournalEntry[]> {
    while (unread.length > 0) {
      const page = firstPage(unread)
      const next = await this.#pages.acquire(FOREVER_MS)
      try {
        const values = [
          id,
          incarnation,
          column('text', page, ({ name }) => name),
          column('int4', page, ({ occurrence }) => occurrence),
        ]
        const rows = await withStoreErrors(this.#db.query(this.#sql.readEntries, values))
        if (rows.length < page.length) throw journalGone()
        for (const [n, entry] of page.entries()) {
          const [output, error] = rows[n] as [unknown, unknown]
          entry.output = toBufferOrNull(output)
          entry.error = toBufferOrNull(error)
        }
      } finally {
        next?.()
      }
      unread.splice(0, page.length)
    }
    return entries
  }

  async #readJournal(batch: ExecutionRef[]): Promise<OpenedJournal[]> {
    const rows = await this.#db.query(this.#sql.readJournal, [
      column('uuid', batch, ({ id }) => id),
      column('int8', batch, ({ incarnation }) => incarnation),
      PAGE_BYTES,
    ])
    const results = batch.map((): OpenedJournal => ({ entries: [], bytes: 0, unread: [] }))
    for (const [n, ...row] of rows) {
      const [name, occurrence, kind, output, error, attempt, completed, at, bytes, isUnread] = row
      const journal = results[(n as number) - 1] as OpenedJournal
      const entry: JournalEntry = {
        name: name as string,
        occurrence: occurrence as number,
        kind: kind as StepKind,
        output: toBufferOrNull(output),
        error: toBufferOrNull(error),
        attempt: attempt as number,
        completed: completed as boolean,
        at: at as string,
      }
      journal.entries.push(entry)
      journal.bytes += bytes as number
      if (isUnread) journal.unread.push({ entry, bytes: bytes as number })
    }
    return results
  }

  /**
   * Waits until no open transaction has written this entry. Needed when a connection broke during a commit, so that
   * the commit may still be under way.
   */
  async awaitTransaction(
    { id, incarnation }: AttemptRef,
    { name, occurrence }: StepId,
  ): Promise<void> {
    await withStoreErrors(
      this.#db.transaction(async (query) => {
        await query('savepoint before')
        await query(this.#sql.awaitTransaction, [id, incarnation, name, occurrence])
        await query('rollback to savepoint before')
      }),
    )
  }

  /**
   * Runs `work` in a transaction of the app. The handle that `work` gets throws after the transaction's end.
   * @param isolation default: the database's default
   */
  transaction<Tx, T>(
    host: TransactionHost<Tx>,
    work: (tx: Tx, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T> {
    return runAppTransaction(this.#db.wrapHost?.(host) ?? host, work, isolation)
  }

  /**
   * Writes the journal entry of a transaction step, in the same transaction as the step's writes.
   * @throws PawlError `schema-missing`, `store-refused`, `execution-gone`, as `runInTransaction`
   */
  async recordInTransaction(run: RunStatement, step: StepRecord): Promise<RecordResult> {
    const { id, incarnation, attempt, name, occurrence, position, kind, output, tookMs } = step
    const recorded = await runInTransaction(run, this.#sql.recordInTransaction, [
      id,
      incarnation,
      String(attempt),
      name,
      String(occurrence),
      String(position),
      kind,
      output?.toString('base64') ?? null,
      String(tookMs),
    ])
    if (recorded === null) return REFUSED
    const [at, ...flags] = String(recorded).split(' ')
    return {
      recorded: true,
      current: !flags.includes('stale'),
      cancelling: flags.includes('cancelling'),
      at: at as string,
    }
  }

  /**
   * Records the outcome of a whole-request transaction, in that transaction.
   * @returns whether another process waits for the outcome; null if the execution has ended already
   * @throws as recordInTransaction
   */
  async completeInTransaction(
    run: RunStatement,
    { id, incarnation, attempt }: AttemptRef,
    { status, headers, body }: Outcome,
    retentionMs: number,
  ): Promise<boolean | null> {
    const awaited = await runInTransaction(run, this.#sql.completeInTransaction, [
      id,
      incarnation,
      String(attempt),
      String(status),
      headers.toString('base64'),
      body?.toString('base64') ?? null,
      String(retentionMs),
    ])
    return awaited as boolean | null
  }

  async #giveUp(step: StepRecord): Promise<RecordResult> {
    const { id, incarnation, attempt, name, occurrence, position, kind, output } = step
    const [row] = await this.#db.query(this.#sql.giveUp, [
      id,
      incarnation,
      attempt,
      this.#owner,
      name,
      occurrence,
      position,
      kind,
      new PgArray('bytea', [output]),
    ])
    return row
      ? { ...REFUSED, recorded: row[0] as boolean, current: true, at: row[1] as string }
      : REFUSED
  }

  #group(sql: string): GroupCommit<StepRecord, RecordResult> {
    return new GroupCommit((batch, lockMs) => this.#send(sql, batch, lockMs), this.#db.timeoutMs, {
      sizeOf: ({ output, error }) => (output?.length ?? 0) + (error?.length ?? 0),
    })
  }

  async #send(sql: string, batch: StepRecord[], lockMs: number | null): Promise<RecordResult[]> {
    const rows = await this.#db.query(sql, [
      column('uuid', batch, (s) => s.id),
      column('int8', batch, (s) => s.incarnation),
      column('int4', batch, (s) => s.attempt),
      column('text', batch, (s) => s.name),
      column('int4', batch, (s) => s.occurrence),
      column('int4', batch, (s) => s.position),
      column('text', batch, (s) => s.kind),
      column('bytea', batch, (s) => s.output),
      column('bytea', batch, (s) => s.error),
      column('int8', batch, (s) => s.tookMs),
      column('bool', batch, (s) => s.completed),
      this.#owner,
      lockMs,
    ])
    const results = new Array<RecordResult>(batch.length).fill(REFUSED)
    for (const [n, won, current, at, cancelling] of rows) {
      results[(n as number) - 1] = {
        recorded: won as boolean,
        current: current as boolean,
        cancelling: cancelling as boolean,
        at: at as string,
      }
    }
    return results
  }
}

function firstPage(unread: OpenedJournal['unread']): JournalEntry[] {
  const page: JournalEntry[] = []
  let size = 0
  for (const { entry, bytes } of unread) {
    if (size >= PAGE_BYTES) break
    size += bytes
    page.push(entry)
  }
  return page
}

function journalGone(): PawlError {
  return new PawlError(
    'execution-gone',
    'The execution was deleted while its journal was read.',
    'Rows of running executions must not be deleted.',
  )
}
