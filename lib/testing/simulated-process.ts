/** Runs the app under test as if in a process of its own, which dies at a chosen crash point. */

import { type StartedInstance, startedInstances } from '../engine/started-instances.ts'
import type { Database } from '../store/database/database.ts'
import { openDatabase } from '../store/database/open-database.ts'
import { processStatements } from '../store/sql/process-statements.ts'
import { type AppServer, serveApp, type TestableApp } from './app-server.ts'
import { CrashPoints } from './crash-points.ts'
import { type CrashTestRequest, type RawAnswer, sendRequest } from './crash-test-request.ts'
import { CrashingDatabase, type ObservedWrites } from './crashing-database.ts'
import { KillSwitch } from './kill-switch.ts'
import { killableDatabase, type TestableDatabase } from './killable-database.ts'

/** The resources with which `makeApp` starts one process of the app. */
export interface ProcessResources<D extends TestableDatabase> {
  /** Pass it to `new Pawl()`, and use it for the app's own statements: no other connection dies in a crash. */
  database: D
  /** Pass it to `new Pawl()`. */
  schema: string
}

/** A started app, as `makeApp` returns it. */
export interface RunningApp {
  app: TestableApp
  /** Stops the app in an orderly way: `pawl.stop()`. Not called if the process dies before. */
  stop(): unknown
  /**
   * Called instead of `stop` if the process dies. Frees what a real crash would free, such as the port
   * of an app that listens itself, and waits for nothing. Default: does nothing.
   */
  kill?(): unknown
}

export type MakeApp<D extends TestableDatabase> = (
  resources: ProcessResources<D>,
) => RunningApp | Promise<RunningApp>

/** How a request ended: with an answer, the death of the process, a lost connection or a timeout. */
export type RequestResult = RawAnswer | 'died' | 'connection-lost' | 'timed-out'

/** A simulated process of the app, inside the test's process, that dies at one of its crash points. */
export class SimulatedProcess {
  readonly points: CrashPoints
  readonly observed: ObservedWrites = { claimed: new Set(), registered: new Set(), outcomes: [] }
  readonly #killSwitch = new KillSwitch()
  readonly #db: Database
  readonly #schema: string
  #app!: RunningApp
  #server!: AppServer
  #pawls: StartedInstance[] = []

  private constructor(db: Database, schema: string, crashAt: string | undefined) {
    this.#db = db
    this.#schema = schema
    this.points = new CrashPoints(crashAt)
  }

  /**
   * @param db the same database, for the test's own statements
   * @param crashAt the id of the crash point at which the process dies; undefined: it does not die
   */
  static async start<D extends TestableDatabase>(
    makeApp: MakeApp<D>,
    { database, schema }: ProcessResources<D>,
    db: Database,
    crashAt: string | undefined,
  ): Promise<SimulatedProcess> {
    const started = new SimulatedProcess(db, schema, crashAt)
    await started.#start(makeApp, database)
    return started
  }

  async #start<D extends TestableDatabase>(makeApp: MakeApp<D>, database: D): Promise<void> {
    const killSwitch = this.#killSwitch
    const open = async (timeoutMs: number) =>
      new CrashingDatabase(
        await openDatabase(database, timeoutMs),
        this.#schema,
        killSwitch,
        this.points,
        this.observed,
      )
    const others = new Set(startedInstances)
    this.#app = await makeApp({
      database: killableDatabase(database, killSwitch, open),
      schema: this.#schema,
    })
    this.#pawls = [...startedInstances].filter((pawl) => !others.has(pawl))
    this.#server = await serveApp(this.#app.app)
  }

  /** Sends the request, and kills the process if it reaches its crash point. */
  async sendRequest(request: CrashTestRequest, timeoutMs: number): Promise<RequestResult> {
    const sent = sendRequest(this.#server.url, request)
    let timer: NodeJS.Timeout | undefined
    const timeUp = new Promise<'timed-out'>((resolve) => {
      timer = setTimeout(() => resolve('timed-out'), timeoutMs)
    })
    const died = this.#killSwitch.killed.then(() => 'died' as const)
    const answer = sent.answer.catch(() => 'connection-lost' as const)
    let result: RequestResult = await Promise.race([died, answer, timeUp])
    clearTimeout(timer)
    if (this.#killSwitch.isKilled) result = 'died'
    if (
      typeof result === 'object' &&
      this.points.reach(this.points.nextId('answer'), () => ANSWER_SENT)
    ) {
      result = 'died'
    }
    if (result === 'died' || result === 'timed-out') {
      await this.#cleanUpAfterDeath()
      sent.abort()
    }
    return result
  }

  /** Stops the app in an orderly way, unless the process is dead. */
  async stop(): Promise<void> {
    if (this.#killSwitch.isKilled) return
    await this.#server.close()
    await this.#app.stop()
  }

  /**
   * Frees what a dead process held, and removes its row from the database, as if its heartbeat had
   * expired.
   */
  async #cleanUpAfterDeath(): Promise<void> {
    this.#killSwitch.kill()
    this.#server.destroy()
    for (const pawl of this.#pawls) pawl.abandon()
    const { unregister } = processStatements(`"${this.#schema}"`)
    for (const id of this.observed.registered) await this.#db.query(unregister, [id])
    await this.#app.kill?.()
  }
}

const ANSWER_SENT = 'after the answer is sent, before it arrives'
