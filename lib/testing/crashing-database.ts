/** A database for Pawl in a simulated process: kills the process before or after a chosen statement. */

import type { Database, Query, Row, Session } from '../store/database/database.ts'
import type { TransactionHost } from '../store/database/transaction-host.ts'
import type { Outcome } from '../store/execution-store.ts'
import { processStatements } from '../store/sql/process-statements.ts'
import { operationClassifier, transactionEntryClassifier } from './classify-statements.ts'
import type { CrashPoints } from './crash-points.ts'
import { CrashingTransactionHost } from './crashing-transaction-host.ts'
import { type KillSwitch, neverSettles } from './kill-switch.ts'
import { killable } from './killable-database.ts'

/** The writes of a process, as its database saw them. */
export interface ObservedWrites {
  /** Ids of the executions that the process claimed. */
  claimed: Set<string>
  /** Ids under which the process registered. */
  registered: Set<string>
  /** Outcomes that the process sent; not those of transactions, which may be rolled back. */
  outcomes: Outcome[]
}

/**
 * A database that kills its simulated process at one of the crash points. After that, no statement of the
 * process reaches the database, and no promise that it waits for settles.
 */
export class CrashingDatabase implements Database {
  readonly #db: Database
  readonly #killSwitch: KillSwitch
  readonly #points: CrashPoints
  readonly #observed: ObservedWrites
  readonly #register: string
  readonly #operations: ReturnType<typeof operationClassifier>
  readonly #entry: ReturnType<typeof transactionEntryClassifier>

  /** @param schema the schema's name, as the user gives it */
  constructor(
    db: Database,
    schema: string,
    killSwitch: KillSwitch,
    points: CrashPoints,
    observed: ObservedWrites,
  ) {
    this.#db = db
    this.#killSwitch = killSwitch
    this.#points = points
    this.#observed = observed
    this.#register = processStatements(`"${schema}"`).register
    this.#operations = operationClassifier(schema)
    this.#entry = transactionEntryClassifier(schema)
  }

  get host(): TransactionHost<unknown> {
    return this.#db.host
  }

  /** The wrapped database has a timeout. A killed process waits for ever, and must not try again. */
  readonly timeoutMs = Number.POSITIVE_INFINITY

  get connections(): number {
    return this.#db.connections
  }

  query: Query = (sql, values) => this.#send(this.#db.query, sql, values)
  urgent: Query = (sql, values) => this.#send(this.#db.urgent, sql, values)

  async #send(query: Query, sql: string, values?: Parameters<Query>[1]): Promise<Row[]> {
    if (this.#killSwitch.isKilled) return neverSettles()
    if (sql === this.#register) this.#observed.registered.add(String(values?.[0]))
    const operations = this.#operations(sql, values ?? []).map((operation) => ({
      ...operation,
      id: this.#points.nextId(operation.kind),
    }))
    for (const { claims, outcome } of operations) {
      if (claims) this.#observed.claimed.add(claims)
      if (outcome) this.#observed.outcomes.push(outcome)
    }
    for (const { id, before } of operations) {
      if (this.#reach(`${id} before`, () => before)) return neverSettles()
    }
    const rows = await this.#killSwitch.untilKilled(query(sql, values))
    for (const { id, after } of operations) {
      if (this.#reach(`${id} after`, () => after)) return neverSettles()
    }
    return rows
  }

  transaction<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#killSwitch.isKilled
      ? neverSettles()
      : this.#killSwitch.untilKilled(this.#db.transaction(work))
  }

  session<T>(work: (session: Session) => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#killSwitch.isKilled
      ? neverSettles()
      : this.#killSwitch.untilKilled(this.#db.session(work, signal))
  }

  async listen(
    channel: string,
    onMessage: (payload: string) => void,
    onLost: () => void,
  ): Promise<() => Promise<void>> {
    if (this.#killSwitch.isKilled) return neverSettles()
    const close = await this.#db.listen(channel, onMessage, onLost)
    if (this.#killSwitch.isKilled) {
      await close()
      return neverSettles()
    }
    const removeListener = this.#killSwitch.onKill(() => {
      close().catch(() => {})
    })
    return async () => {
      removeListener()
      await close()
    }
  }

  wrapHost<Tx>(host: TransactionHost<Tx>): TransactionHost<Tx> {
    const guard =
      host === (this.host as unknown) ? killableTransactions(host, this.#killSwitch) : host
    return new CrashingTransactionHost(guard, this.#killSwitch, this.#points, this.#entry)
  }

  close(): Promise<void> {
    return this.#killSwitch.isKilled ? neverSettles() : this.#db.close()
  }

  /** @returns whether the process is dead, killed at this point or another */
  #reach(id: string, describe: () => string): boolean {
    if (this.#points.reach(id, describe)) this.#killSwitch.kill()
    return this.#killSwitch.isKilled
  }
}

/** Wraps a pool's own transactions, so that their client does nothing once the process is dead. */
function killableTransactions<Tx>(
  host: TransactionHost<Tx>,
  killSwitch: KillSwitch,
): TransactionHost<Tx> {
  return {
    transaction: (work, isolation) =>
      host.transaction((tx, run) => work(killable(tx as object, killSwitch) as Tx, run), isolation),
  }
}
