import type { RunStatement, TransactionHost } from '../store/database/transaction-host.ts'
import type { CrashPoints } from './crash-points.ts'
import { type Life, never } from './kill-switch.ts'
import type { entryReader } from './classify-statements.ts'

/**
 * How long a transaction that is under way when its process dies may go on before it is rolled back. Its
 * code is not told, and must not find its connection in other hands while it still writes.
 */
const GRACE_MS = 100

/** Rolls back a transaction whose process is dead. */
class Crashed extends Error {
  override readonly name = 'Crashed'
}

/** The moments of one transaction, which gets its name when its entry is seen. */
class Moments {
  readonly #life: Life
  readonly #points: CrashPoints
  readonly #id: string
  name: string

  constructor(life: Life, points: CrashPoints) {
    this.#life = life
    this.#points = points
    this.#id = points.next('transaction')
    this.name = this.#id
  }

  /** @returns whether the process is dead, by this moment or another */
  reach(moment: string, describe: (name: string) => string): boolean {
    if (this.#points.reach(`${this.#id} ${moment}`, () => describe(this.name))) this.#life.die()
    return this.#life.isOver
  }
}

/** Whatever opens transactions, as a process sees it that dies at one of their moments. */
export class CrashingHost<Tx> implements TransactionHost<Tx> {
  readonly #host: TransactionHost<Tx>
  readonly #life: Life
  readonly #points: CrashPoints
  readonly #entry: ReturnType<typeof entryReader>

  constructor(
    host: TransactionHost<Tx>,
    life: Life,
    points: CrashPoints,
    entry: ReturnType<typeof entryReader>,
  ) {
    this.#host = host
    this.#life = life
    this.#points = points
    this.#entry = entry
  }

  transaction: TransactionHost<Tx>['transaction'] = async (work, isolation) => {
    if (this.#life.isOver) return never()
    const moments = new Moments(this.#life, this.#points)
    if (moments.reach('begin', (name) => `before ${name} begins`)) return never()

    let rollBack = () => {}
    const rolledBack = new Promise<never>((_, reject) => {
      rollBack = () => reject(new Crashed())
    })
    rolledBack.catch(() => {})
    const forget = this.#life.atDeath(() => setTimeout(rollBack, GRACE_MS))
    const inside = async (tx: Tx, run: RunStatement) => {
      if (this.#life.isOver) throw new Crashed()
      const result = await work(tx, this.#watch(run, moments, rollBack))
      if (this.#life.isOver || moments.reach('commit', (name) => `before ${name} commits`)) {
        throw new Crashed()
      }
      return result
    }
    const committed = this.#host.transaction(
      (tx, run) => Promise.race([inside(tx, run), rolledBack]),
      isolation,
    )
    const result = await this.#life.deliver(committed.finally(forget))
    if (moments.reach('after', (name) => `after ${name} has committed`)) return never()
    return result
  }

  #watch(run: RunStatement, moments: Moments, rollBack: () => void): RunStatement {
    return (sql, values) => {
      if (this.#life.isOver) return never()
      const name = this.#entry(sql, values)
      if (name) {
        moments.name = name
        if (moments.reach('entry', () => `before the journal entry of ${name}`)) {
          rollBack()
          return never()
        }
      }
      return run(sql, values)
    }
  }
}
