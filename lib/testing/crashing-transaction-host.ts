/** Opens transactions in a simulated process, and kills it at a chosen moment of one. */

import type { RunStatement, TransactionHost } from '../store/database/transaction-host.ts'
import type { transactionEntryClassifier } from './classify-statements.ts'
import type { CrashPoints } from './crash-points.ts'
import { type KillSwitch, neverSettles } from './kill-switch.ts'

/**
 * Milliseconds between the death of a process and the rollback of its open transactions. The code in a
 * transaction does not learn of the death, and its connection must not be reused while it still writes.
 */
const GRACE_MS = 100

/** Thrown inside a transaction to roll it back when its process is dead. */
class ProcessKilledError extends Error {
  override readonly name = 'Crashed'
}

/** The crash points of one transaction. Its name becomes known when it sends its journal entry. */
class TransactionCrashPoints {
  readonly #killSwitch: KillSwitch
  readonly #points: CrashPoints
  readonly #id: string
  name: string

  constructor(killSwitch: KillSwitch, points: CrashPoints) {
    this.#killSwitch = killSwitch
    this.#points = points
    this.#id = points.nextId('transaction')
    this.name = this.#id
  }

  /** @returns whether the process is dead, killed at this moment or another */
  reach(moment: string, describe: (name: string) => string): boolean {
    if (this.#points.reach(`${this.#id} ${moment}`, () => describe(this.name)))
      this.#killSwitch.kill()
    return this.#killSwitch.isKilled
  }
}

/** Wraps a transaction host, and kills the simulated process at one of the points of a transaction. */
export class CrashingTransactionHost<Tx> implements TransactionHost<Tx> {
  readonly #host: TransactionHost<Tx>
  readonly #killSwitch: KillSwitch
  readonly #points: CrashPoints
  readonly #entry: ReturnType<typeof transactionEntryClassifier>

  constructor(
    host: TransactionHost<Tx>,
    killSwitch: KillSwitch,
    points: CrashPoints,
    entry: ReturnType<typeof transactionEntryClassifier>,
  ) {
    this.#host = host
    this.#killSwitch = killSwitch
    this.#points = points
    this.#entry = entry
  }

  transaction: TransactionHost<Tx>['transaction'] = async (work, isolation) => {
    if (this.#killSwitch.isKilled) return neverSettles()
    const points = new TransactionCrashPoints(this.#killSwitch, this.#points)
    if (points.reach('begin', (name) => `before ${name} begins`)) return neverSettles()

    let rollBack = () => {}
    const rolledBack = new Promise<never>((_, reject) => {
      rollBack = () => reject(new ProcessKilledError())
    })
    rolledBack.catch(() => {})
    const removeListener = this.#killSwitch.onKill(() => setTimeout(rollBack, GRACE_MS))
    const inside = async (tx: Tx, run: RunStatement) => {
      if (this.#killSwitch.isKilled) throw new ProcessKilledError()
      const result = await work(tx, this.#interceptEntry(run, points, rollBack))
      if (this.#killSwitch.isKilled || points.reach('commit', (name) => `before ${name} commits`)) {
        throw new ProcessKilledError()
      }
      return result
    }
    const committed = this.#host.transaction(
      (tx, run) => Promise.race([inside(tx, run), rolledBack]),
      isolation,
    )
    const result = await this.#killSwitch.untilKilled(committed.finally(removeListener))
    if (points.reach('after', (name) => `after ${name} has committed`)) return neverSettles()
    return result
  }

  #interceptEntry(
    run: RunStatement,
    points: TransactionCrashPoints,
    rollBack: () => void,
  ): RunStatement {
    return (sql, values) => {
      if (this.#killSwitch.isKilled) return neverSettles()
      const name = this.#entry(sql, values)
      if (name) {
        points.name = name
        if (points.reach('entry', () => `before the journal entry of ${name}`)) {
          rollBack()
          return neverSettles()
        }
      }
      return run(sql, values)
    }
  }
}
