import type { Database } from './database/database.ts'
import { handOut, runIn } from './database/app-transaction.ts'
import { lease } from './database/revocable-handle.ts'
import { toBytes, translate } from './database/store-errors.ts'
import type { IsolationLevel, RunStatement, TransactionHost } from './database/transaction-host.ts'
import { column, PgArray } from './database/pg-array.ts'
import { GroupCommit } from './group-commit.ts'
import { type StepStatements, stepStatements } from './sql/step-statements.ts'
import type { AttemptRef, Outcome } from './execution-store.ts'

/** What an entry of the journal is of. */
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

/** Names an entry within its execution. */
export interface StepName {
  name: string
  /** Counts the uses of the name, from 1; negative: the compensation of that one. */
  occurrence: number
}

/** A step to be recorded. */
export interface StepRecord extends AttemptRef, StepName {
  /** Its rank in the order in which steps are replayed. */
  position: number
  kind: StepKind
  /** Null for undefined, or if there is none. */
  output: Buffer | null
  /** Of a step that failed for good. */
  error: Buffer | null
  /** How long it took, in ms. */
  tookMs: number
  /** False for the bare intent of a step. */
  completed: boolean
  /** Whether only the current attempt may record it: failures and intents. */
  onlyIfCurrent: boolean
}

/** What became of a step to be recorded. */
export interface Recorded {
  /** False: an entry was there before, or the execution is over, or this attempt may not. */
  won: boolean
  /** Whether the attempt is still the current one. */
  current: boolean
  /** Whether the execution was asked to end. */
  cancelling: boolean
  /** When, by the database's clock, in microseconds since 1970. */
  at: string
}

/** An entry of the journal. */
export interface Entry extends StepName {
  kind: StepKind
  output: Buffer | null
  error: Buffer | null
  /** The attempt that recorded it. */
  attempt: number
  /** False for the bare intent of a step. */
  completed: boolean
  /** When it was recorded, in microseconds since 1970. */
  at: string
}

/** One life of an execution. */
type Life = Pick<AttemptRef, 'id' | 'born'>

const REFUSED: Recorded = { won: false, current: false, cancelling: false, at: '' }

/** What the engine asks of the journal in Postgres. */
export class StepStore {
  readonly #db: Database
  readonly #sql: StepStatements
  readonly #owner: string
  readonly #records = this.#group(() => this.#sql.record)
  readonly #guarded = this.#group(() => this.#sql.recordGuarded)
  readonly #journals = new GroupCommit<Life, Entry[]>((batch) => this.#journal(batch))

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   */
  constructor(db: Database, schema: string, owner: string) {
    this.#db = db
    this.#sql = stepStatements(`"${schema}"`)
    this.#owner = owner
  }

  /** The database that Pawl was given, as a host of transactions. */
  get host(): TransactionHost<unknown> {
    return this.#db.host
  }

  /** Whether nothing else can be recorded while a transaction of that host is open. */
  blocks(host: TransactionHost<unknown>): boolean {
    return host === this.#db.host && this.#db.connections === 1
  }

  /** Records a step, unless it is recorded. May be sent twice. */
  record(step: StepRecord): Promise<Recorded> {
    if (step.kind === 'giving-up') return translate(this.#giveUp(step))
    return translate((step.onlyIfCurrent ? this.#guarded : this.#records).run(step))
  }

  /** All that is recorded, in the order in which it is to be replayed. */
  journal(life: Life): Promise<Entry[]> {
    return translate(this.#journals.run(life))
  }

  async #journal(batch: Life[]): Promise<Entry[][]> {
    const rows = await this.#db.query(this.#sql.journal, [
      column('uuid', batch, ({ id }) => id),
      column('int8', batch, ({ born }) => born),
    ])
    const results = batch.map((): Entry[] => [])
    for (const [n, name, occurrence, kind, output, error, attempt, completed, at] of rows) {
      results[(n as number) - 1]?.push({
        name: name as string,
        occurrence: occurrence as number,
        kind: kind as StepKind,
        output: toBytes(output),
        error: toBytes(error),
        attempt: attempt as number,
        completed: completed as boolean,
        at: at as string,
      })
    }
    return results
  }

  /**
   * Resolves when no transaction that recorded this step is under way any more: its connection may have
   * broken while it committed.
   */
  async awaitTransaction({ id, born }: AttemptRef, { name, occurrence }: StepName): Promise<void> {
    await translate(
      this.#db.transaction(async (query) => {
        await query('savepoint before')
        await query(this.#sql.awaitTransaction, [id, born, name, occurrence])
        await query('rollback to savepoint before')
      }),
    )
  }

  /**
   * Runs `work` in a transaction of the app's, of which nothing can be used afterwards.
   * @param isolation default: the database's
   */
  transaction<Tx, T>(
    host: TransactionHost<Tx>,
    work: (tx: Tx, run: RunStatement) => Promise<T>,
    isolation: IsolationLevel | undefined,
  ): Promise<T> {
    const enlisted = this.#db.enlist?.(host) ?? host
    return enlisted.transaction(async (tx, run) => {
      const { handle, end } = lease(tx)
      handOut(handle, run)
      try {
        return await work(handle, run)
      } finally {
        end()
      }
    }, isolation)
  }

  /**
   * Records a step in the transaction whose writes belong to it.
   * @throws PawlError `schema-missing`, `store-refused`, `execution-gone`: it is another database's
   */
  async recordIn(run: RunStatement, step: StepRecord): Promise<Recorded> {
    const { id, born, attempt, name, occurrence, position, kind, output, tookMs } = step
    const recorded = await runIn(run, this.#sql.recordInTransaction, [
      id,
      born,
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
      won: true,
      current: !flags.includes('stale'),
      cancelling: flags.includes('cancelling'),
      at: at as string,
    }
  }

  /**
   * Records the outcome in the transaction whose writes belong to it.
   * @returns whether somebody waits for it; null if the execution is over
   * @throws as recordIn
   */
  async completeIn(
    run: RunStatement,
    { id, born, attempt }: AttemptRef,
    { status, headers, body }: Outcome,
    retentionMs: number,
  ): Promise<boolean | null> {
    const awaited = await runIn(run, this.#sql.completeInTransaction, [
      id,
      born,
      String(attempt),
      String(status),
      headers.toString('base64'),
      body?.toString('base64') ?? null,
      String(retentionMs),
    ])
    return awaited as boolean | null
  }

  async #giveUp(step: StepRecord): Promise<Recorded> {
    const { id, born, attempt, name, occurrence, position, kind, output } = step
    const [row] = await this.#db.query(this.#sql.giveUp, [
      id,
      born,
      attempt,
      this.#owner,
      name,
      occurrence,
      position,
      kind,
      new PgArray('bytea', [output]),
    ])
    return row
      ? { ...REFUSED, won: row[0] as boolean, current: true, at: row[1] as string }
      : REFUSED
  }

  #group(sql: () => string): GroupCommit<StepRecord, Recorded> {
    return new GroupCommit((batch) => this.#send(sql(), batch), {
      weigh: ({ output, error }) => (output?.length ?? 0) + (error?.length ?? 0),
    })
  }

  async #send(sql: string, batch: StepRecord[]): Promise<Recorded[]> {
    const rows = await this.#db.query(sql, [
      column('uuid', batch, (s) => s.id),
      column('int8', batch, (s) => s.born),
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
    ])
    const results = new Array<Recorded>(batch.length).fill(REFUSED)
    for (const [n, won, current, at, cancelling] of rows) {
      results[(n as number) - 1] = {
        won: won as boolean,
        current: current as boolean,
        cancelling: cancelling as boolean,
        at: at as string,
      }
    }
    return results
  }
}
