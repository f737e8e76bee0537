/** Reads and writes the keyed state of objects. */

import { toBuffer } from './database/buffers.ts'
import type { Database } from './database/database.ts'
import { column } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import type { AttemptRef } from './execution-store.ts'
import { GroupCommit } from './group-commit.ts'
import { type StateStatements, stateStatements } from './sql/state-statements.ts'
import type { RecordResult, StepId } from './step-store.ts'

/** An object's name, and a key of the object: each has its own state. */
export interface StateKey {
  object: string
  key: string
}

/** A change of one value, and the journal entry that is written with it. */
export interface StateChange extends AttemptRef, StateKey {
  /** Identifies the journal entry. */
  entry: StepId
  position: number
  tookMs: number
  /** The name of the value. */
  name: string
  /** The encoded value; null deletes it. */
  value: Buffer | null
}

const REFUSED: RecordResult = { recorded: false, current: false, cancelling: false, at: '' }

/** Reads and writes keyed state. */
export class StateStore {
  readonly #db: Database
  readonly #sql: StateStatements
  readonly #owner: string
  readonly #changes: GroupCommit<StateChange, RecordResult>

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   */
  constructor(db: Database, schema: string, owner: string) {
    this.#db = db
    this.#sql = stateStatements(`"${schema}"`)
    this.#owner = owner
    this.#changes = new GroupCommit((batch, lockMs) => this.#change(batch, lockMs), db.timeoutMs, {
      sizeOf: ({ value }) => value?.length ?? 0,
    })
  }

  /** All values under a key, by name. */
  async read({ object, key }: StateKey): Promise<Map<string, Buffer>> {
    const rows = await withStoreErrors(this.#db.query(this.#sql.read, [object, key]))
    return new Map(rows.map(([name, value]) => [name as string, toBuffer(value as Uint8Array)]))
  }

  /** Changes a value, unless the journal entry exists or the attempt is not the current one. */
  change(change: StateChange): Promise<RecordResult> {
    return withStoreErrors(this.#changes.run(change))
  }

  async #change(batch: StateChange[], lockMs: number | null): Promise<RecordResult[]> {
    const text = (pick: (change: StateChange) => string) => column('text', batch, pick)
    const rows = await this.#db.query(this.#sql.change, [
      column('uuid', batch, (c) => c.id),
      column('int8', batch, (c) => c.incarnation),
      column('int4', batch, (c) => c.attempt),
      text((c) => c.entry.name),
      column('int4', batch, (c) => c.entry.occurrence),
      column('int4', batch, (c) => c.position),
      column('int8', batch, (c) => Math.round(c.tookMs)),
      text((c) => c.object),
      text((c) => c.key),
      text((c) => c.name),
      column('bytea', batch, (c) => c.value),
      this.#owner,
      lockMs,
    ])
    const results = new Array<RecordResult>(batch.length).fill(REFUSED)
    for (const [n, won, cancelling, at] of rows) {
      results[(n as number) - 1] = {
        recorded: won as boolean,
        current: true,
        cancelling: cancelling as boolean,
        at: at as string,
      }
    }
    return results
  }
}
