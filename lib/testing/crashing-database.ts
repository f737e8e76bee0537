import type { Database, Query, Row } from '../store/database/database.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import { statements } from '../store/sql/execution-statements.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { CrashPoints } from './crash-points.ts'
import { CrashingHost } from './crashing-transaction-host.ts'
import { type Life, never } from './kill-switch.ts'
import { guarded } from './killable-database.ts'
import { entryReader, operationReader } from './classify-statements.ts'

/** What came of a process, as its database saw it. */
export interface Witness {
  /** Ids of the executions it claimed. */
  claimed: Set<string>
  /** Ids under which it registered. */
  registered: Set<string>
  /** What it was about to record as outcomes; not those of transactions, which may be rolled back. */
  outcomes: Outcome[]
}

/**
 * The database as a process sees it that dies at one of its crash points. From then on nothing that the
 * process sends arrives, and nothing that it waits for comes.
 */
export class CrashingDatabase implements Database {
  readonly #db: Database
  readonly #life: Life
  readonly #points: CrashPoints
  readonly #witness: Witness
  readonly #register: string
  readonly #operations: ReturnType<typeof operationReader>
  readonly #entry: ReturnType<typeof entryReader>

  /** @param schema the schema's name, as given by the user */
  constructor(db: Database, schema: string, life: Life, points: CrashPoints, witness: Witness) {
    this.#db = db
    this.#life = life
    this.#points = points
    this.#witness = witness
    this.#register = statements(`"${schema}"`).register
    this.#operations = operationReader(schema)
    this.#entry = entryReader(schema)
  }

  get host(): TransactionHost<unknown> {
    return this.#db.host
  }

  get connections(): number {
    return this.#db.connections
  }

  query: Query = (sql, values) => this.#send(this.#db.query, sql, values)
  urgent: Query = (sql, values) => this.#send(this.#db.urgent, sql, values)

  async #send(query: Query, sql: string, values?: Parameters<Query>[1]): Promise<Row[]> {
    if (this.#life.isOver) return never()
    if (sql === this.#register) this.#witness.registered.add(String(values?.[0]))
    const operations = this.#operations(sql, values ?? []).map((operation) => ({
      ...operation,
      id: this.#points.next(operation.kind),
    }))
    for (const { claims, outcome } of operations) {
      if (claims) this.#witness.claimed.add(claims)
      if (outcome) this.#witness.outcomes.push(outcome)
    }
    for (const { id, before } of operations) {
      if (this.#reach(`${id} before`, () => before)) return never()
    }
    const rows = await this.#life.deliver(query(sql, values))
    for (const { id, after } of operations) {
      if (this.#reach(`${id} after`, () => after)) return never()
    }
    return rows
  }

  transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#life.isOver ? never() : this.#life.deliver(this.#db.transaction(work))
  }

  async listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>> {
    if (this.#life.isOver) return never()
    const close = await this.#db.listen(channel, onMessage, onLost)
    if (this.#life.isOver) {
      await close()
      return never()
    }
    const forget = this.#life.atDeath(() => {
      close().catch(() => {})
    })
    return async () => {
      forget()
      await close()
    }
  }

  enlist<Tx>(host: TransactionHost<Tx>): TransactionHost<Tx> {
    const guard = host === (this.host as unknown) ? mortalTransactions(host, this.#life) : host
    return new CrashingHost(guard, this.#life, this.#points, this.#entry)
  }

  close(): Promise<void> {
    return this.#life.isOver ? never() : this.#db.close()
  }

  /** @returns whether the process is dead, by this point or another */
  #reach(id: string, describe: () => string): boolean {
    if (this.#points.reach(id, describe)) this.#life.die()
    return this.#life.isOver
  }
}

/** A pool's own transactions: their client is of no use any more when the process is dead. */
function mortalTransactions<Tx>(host: TransactionHost<Tx>, life: Life): TransactionHost<Tx> {
  return {
    transaction: (work, isolation) =>
      host.transaction((tx, run) => work(guarded(tx as object, life) as Tx, run), isolation),
  }
}
