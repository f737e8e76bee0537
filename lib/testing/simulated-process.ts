import { type StartedInstance, startedInstances } from '../engine/started-instances.ts'
import type { Database } from '../store/database/database.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { statements } from '../store/sql/execution-statements.ts'
import { CrashPoints } from './crash-points.ts'
import { CrashingDatabase, type Witness } from './crashing-database.ts'
import { Life } from './kill-switch.ts'
import { mortal, type TestableDatabase } from './killable-database.ts'
import { type CrashTestRequest, send, type WireAnswer } from './crash-test-request.ts'
import { type Listening, listen, type TestableApp } from './app-server.ts'

/** What one process of the app is made with. */
export interface ProcessResources<D extends TestableDatabase> {
  /** For `new Pawl()`, and for the app's own statements. The process must not outlive it. */
  database: D
  /** For `new Pawl()`. */
  schema: string
}

/** An app as `makeApp` gives it. */
export interface RunningApp {
  app: TestableApp
  /** Ends it in an orderly way: `pawl.stop()`. Not called if the process dies before. */
  stop(): unknown
  /**
   * Called instead of `stop` if the process dies: frees what a real death would free, such as the port
   * of an app that listens by itself, and waits for nothing. Default: nothing.
   */
  kill?(): unknown
}

export type MakeApp<D extends TestableDatabase> = (
  resources: ProcessResources<D>,
) => RunningApp | Promise<RunningApp>

/** How a request ended: an answer, the death of the process, a lost connection, or nothing in time. */
export type Ending = WireAnswer | 'died' | 'cut-off' | 'timed-out'

/** A process of the app, inside of this one, that dies at one of its crash points. */
export class AppProcess {
  readonly points: CrashPoints
  readonly witness: Witness = { claimed: new Set(), registered: new Set(), outcomes: [] }
  readonly #life = new Life()
  readonly #db: Database
  readonly #schema: string
  #app!: RunningApp
  #listening!: Listening
  #pawls: StartedInstance[] = []

  private constructor(db: Database, schema: string, crashAt: string | undefined) {
    this.#db = db
    this.#schema = schema
    this.points = new CrashPoints(crashAt)
  }

  /**
   * @param db the same database, for this file's own statements
   * @param crashAt the id of the crash point at which it dies; undefined: at none
   */
  static async start<D extends TestableDatabase>(
    makeApp: MakeApp<D>,
    { database, schema }: ProcessResources<D>,
    db: Database,
    crashAt: string | undefined,
  ): Promise<AppProcess> {
    const started = new AppProcess(db, schema, crashAt)
    await started.#start(makeApp, database)
    return started
  }

  async #start<D extends TestableDatabase>(makeApp: MakeApp<D>, database: D): Promise<void> {
    const life = this.#life
    const open = async (timeoutMs: number) =>
      new CrashingDatabase(
        await openDatabase(database, timeoutMs),
        this.#schema,
        life,
        this.points,
        this.witness,
      )
    const others = new Set(startedInstances)
    this.#app = await makeApp({
      database: mortal(database, life, open),
      schema: this.#schema,
    })
    this.#pawls = [...startedInstances].filter((pawl) => !others.has(pawl))
    this.#listening = await listen(this.#app.app)
  }

  /** Sends the request, and kills the process if it comes to its crash point. */
  async handle(request: CrashTestRequest, timeoutMs: number): Promise<Ending> {
    const sent = send(this.#listening.url, request)
    let timer: NodeJS.Timeout | undefined
    const timeUp = new Promise<'timed-out'>((resolve) => {
      timer = setTimeout(() => resolve('timed-out'), timeoutMs)
    })
    const died = this.#life.death.then(() => 'died' as const)
    const answer = sent.answer.catch(() => 'cut-off' as const)
    let ending: Ending = await Promise.race([died, answer, timeUp])
    clearTimeout(timer)
    if (this.#life.isOver) ending = 'died'
    if (typeof ending === 'object' && this.points.reach(this.points.next('answer'), () => SENT)) {
      ending = 'died'
    }
    if (ending === 'died' || ending === 'timed-out') {
      await this.#bury()
      sent.drop()
    }
    return ending
  }

  /** Ends it in an orderly way. */
  async stop(): Promise<void> {
    if (this.#life.isOver) return
    await this.#listening.close()
    await this.#app.stop()
  }

  /** What is left to do when a process is dead: its heartbeat has ended, and its time has run out. */
  async #bury(): Promise<void> {
    this.#life.die()
    this.#listening.bury()
    for (const pawl of this.#pawls) pawl.abandon()
    const { unregister } = statements(`"${this.#schema}"`)
    for (const id of this.witness.registered) await this.#db.query(unregister, [id])
    await this.#app.kill?.()
  }
}

const SENT = 'after the answer is sent, before it arrives'
