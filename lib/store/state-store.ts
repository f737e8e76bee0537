import type { Database } from './database/database.ts'
import { toBuffer, translate } from './database/store-errors.ts'
import { column } from './database/pg-array.ts'
import { GroupCommit } from './group-commit.ts'
import { type StateStatements, stateStatements } from './sql/state-statements.ts'
import type { Recorded, StepName } from './step-store.ts'
import type { AttemptRef } from './execution-store.ts'

/** Names what is kept: a key of an object. */
export interface StateKey {
  object: string
  key: string
}

/** A change of state, and the journal entry that it goes with. */
export interface StateChange extends AttemptRef, StateKey {
  /** The name of the entry. */
  entry: StepName
  position: number
  tookMs: number
  /** What is changed. */
  name: string
  /** Null: it is deleted. */
  value: Buffer | null
}

const REFUSED: Recorded = { won: false, current: false, cancelling: false, at: '' }

/** What keyed state asks of Postgres. */
export class StateStore {
  readonly #db: Database
  readonly #sql: StateStatements
  readonly #owner: string
  readonly #changes = new GroupCommit<StateChange, Recorded>((batch) => this.#change(batch), {
    weigh: ({ value }) => value?.length ?? 0,
  })

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   */
  constructor(db: Database, schema: string, owner: string) {
    this.#db = db
    this.#sql = stateStatements(`"${schema}"`)
    this.#owner = owner
  }

  /** All that is kept under a key. */
  async read({ object, key }: StateKey): Promise<Map<string, Buffer>> {
    const rows = await translate(this.#db.query(this.#sql.read, [object, key]))
    return new Map(rows.map(([name, value]) => [name as string, toBuffer(value as Uint8Array)]))
  }

  /** Changes something, unless the entry is recorded or the attempt is not the current one. */
  change(change: StateChange): Promise<Recorded> {
    return translate(this.#changes.run(change))
  }

  async #change(batch: StateChange[]): Promise<Recorded[]> {
    const text = (pick: (change: StateChange) => string) => column('text', batch, pick)
    const rows = await this.#db.query(this.#sql.change, [
      column('uuid', batch, (c) => c.id),
      column('int8', batch, (c) => c.born),
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
    ])
    const results = new Array<Recorded>(batch.length).fill(REFUSED)
    for (const [n, won, cancelling, at] of rows) {
      results[(n as number) - 1] = {
        won: won as boolean,
        current: true,
        cancelling: cancelling as boolean,
        at: at as string,
      }
    }
    return results
  }
}
