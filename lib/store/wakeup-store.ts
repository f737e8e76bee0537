import type { Database } from './database/database.ts'
import { toBuffer, translate } from './database/store-errors.ts'
import { PgArray } from './database/pg-array.ts'
import { type WakeupStatements, wakeupStatements } from './sql/wakeup-statements.ts'
import type { AttemptRef, ExecutionKind } from './execution-store.ts'

/** An execution that a worker has taken over. */
export interface Taken extends AttemptRef {
  kind: ExecutionKind
  scope: string
  key: string
  /** Where the request went, or the workflow's name. */
  name: string
  version: string | null
  fingerprint: Buffer
  /** What it was asked. */
  input: Buffer
  /** Counts what has arrived for it. */
  inbox: number
  cancelling: boolean
  /** When its time is up, in microseconds since 1970; null: never. */
  deadline: string | null
  /** How many attempts it may have before workers give up. */
  maxAttempts: number
  /** When it was taken, by the database's clock, in microseconds since 1970. */
  at: string
}

/** An execution that workers have given up, or that was asked to end. */
export interface Named {
  id: string
  kind: ExecutionKind
  scope: string
  key: string
  name: string
  /** How many attempts it had. */
  attempt: number
}

/** What a worker is told when it asks. */
export interface Due {
  taken: Taken[]
  parked: Named[]
  /** Of those that run in this process. */
  cancelling: Named[]
  /** How many were looked at. As many as were asked for: there may be more. */
  looked: number
  /** How many more are due and are being written to: they are to be looked at again at once. */
  busy: number
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
   * @param handlers what this process can go on with
   * @param busy ids of those that this process works on
   */
  async takeDue(handlers: readonly string[], limit: number, busy: string[]): Promise<Due> {
    const values = [
      new PgArray('text', handlers),
      limit,
      this.#owner,
      this.#leaseMs,
      new PgArray('uuid', busy),
    ]
    const rows = await translate(this.#db.query(this.#sql.takeDue, values))
    const due: Due = { taken: [], parked: [], cancelling: [], looked: 0, busy: 0 }
    for (const [what, id, attempt, born, kind, scope, key, name, ...rest] of rows) {
      if (what === 'looked') {
        due.looked = attempt as number
        due.busy = rest[3] as number
        continue
      }
      const named = { id, attempt, kind, scope, key, name } as Named
      if (what === 'taken') due.taken.push(toTaken(named, born as string, rest))
      else due[what as 'parked' | 'cancelling'].push(named)
    }
    return due
  }

  /** In how many ms the next execution is due; null if none has a time. */
  async nextDue(handlers: readonly string[]): Promise<number | null> {
    const [row] = await translate(
      this.#db.query(this.#sql.nextDue, [new PgArray('text', handlers)]),
    )
    const ms = row?.[0] ?? null
    return ms === null ? null : Number(ms)
  }
}

function toTaken(named: Named, born: string, row: unknown[]): Taken {
  const [version, fingerprint, input, inbox, cancelling, deadline, maxAttempts, at] = row
  return {
    ...named,
    born,
    version: version as string | null,
    fingerprint: toBuffer(fingerprint as Uint8Array),
    input: toBuffer(input as Uint8Array),
    inbox: inbox as number,
    cancelling: cancelling as boolean,
    deadline: deadline as string | null,
    maxAttempts: maxAttempts as number,
    at: at as string,
  }
}
