import type { Database } from './database.ts'
import { toBuffer, translate } from './results.ts'
import type { AttemptRef } from './store.ts'
import { PgArray } from './values.ts'
import { type WakeupStatements, wakeupStatements } from './wakeup-statements.ts'

/** An execution that a worker has taken over. */
export interface Taken extends AttemptRef {
  scope: string
  key: string
  /** Where the request went. */
  name: string
  fingerprint: Buffer
  /** What it was asked. */
  input: Buffer
}

/** An execution that workers have given up. */
export interface Parked {
  id: string
  scope: string
  key: string
  name: string
  /** How many attempts it had. */
  attempt: number
}

/** What workers ask of Postgres. */
export class WakeupStore {
  readonly #db: Database
  readonly #sql: WakeupStatements
  readonly #owner: string
  readonly #leaseMs: number

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   * @param leaseMs after how long an execution that was taken is looked at again, in ms
   */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = wakeupStatements(`"${schema}"`)
    this.#owner = owner
    this.#leaseMs = leaseMs
  }

  /**
   * Takes at most `limit` executions that are due.
   * @param busy ids of those that this process works on
   */
  async takeDue(
    queue: string,
    limit: number,
    busy: string[],
  ): Promise<{ taken: Taken[]; parked: Parked[] }> {
    const values = [queue, limit, this.#owner, this.#leaseMs, new PgArray('uuid', busy)]
    const rows = await translate(this.#db.query(this.#sql.takeDue, values))
    const taken: Taken[] = []
    const parked: Parked[] = []
    for (const [isParked, id, attempt, born, scope, key, name, fingerprint, input] of rows) {
      const named = { id, attempt, scope, key, name } as Parked
      if (isParked) parked.push(named)
      else {
        taken.push({
          ...named,
          born: born as string,
          fingerprint: toBuffer(fingerprint as Uint8Array),
          input: toBuffer(input as Uint8Array),
        })
      }
    }
    return { taken, parked }
  }
}
