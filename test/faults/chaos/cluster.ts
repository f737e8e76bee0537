/** Three processes of the chaos app, and what happens to them: they are killed, stopped, and started again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type ChildApp, spawnApp } from '../../helpers/child.ts'
import type { TestPostgres } from '../../helpers/postgres.ts'
import type { Random } from './random.ts'

const PROCESSES = 3

export interface ClusterOptions {
  databaseUrl: string
  ledgerUrl: string
  /** In ms. */
  processTimeoutMs: number
}

/** When a process was stopped, in ms since 1970. */
export interface Stop {
  pid: number
  from: number
  to: number
}

/** A place for one process, and the process that has it, if one runs. */
interface Slot {
  /** Half of them restart under one name. */
  instance: string | undefined
  app: ChildApp | undefined
  isStopped: boolean
  /** Whether something is happening to it. */
  isBusy: boolean
}

/** The processes of the app. */
export class Cluster {
  readonly #options: ClusterOptions
  readonly #postgres: TestPostgres
  readonly #random: Random
  readonly #slots: Slot[]
  readonly #underWay = new Set<Promise<void>>()
  readonly #killed = new WeakSet<ChildApp>()
  readonly stops: Stop[] = []
  readonly counts = { kills: 0, stops: 0, deploys: 0, crashes: 0 }
  /** What the processes warned of. */
  readonly warnings: { message: string; [field: string]: unknown }[] = []
  /** What has gone wrong with the processes themselves. */
  readonly failures: string[] = []

  constructor(options: ClusterOptions, postgres: TestPostgres, random: Random) {
    this.#options = options
    this.#postgres = postgres
    this.#random = random
    this.#slots = Array.from({ length: PROCESSES }, (_, n) => ({
      instance: n % 2 ? undefined : `instance-${n}`,
      ...{ app: undefined, isStopped: false, isBusy: false },
    }))
  }

  async start(): Promise<void> {
    await Promise.all(this.#slots.map((slot) => this.#spawn(slot)))
  }

  /** The URL of any process that listens. */
  async url(random: Random): Promise<string> {
    for (;;) {
      const { app } = random.pick(this.#slots)
      if (app) return app.url
      await sleep(20)
    }
  }

  /** Does one thing to one of the processes, or to PostgreSQL. Each of the four comes first in a round of four. */
  async strike(n: number): Promise<void> {
    const random = this.#random
    const kinds = ['kill', 'stop', 'crash', 'deploy'] as const
    const kind =
      n < kinds.length ? kinds[n] : random.pick(['kill', 'kill', 'stop', 'deploy', 'crash'])
    if (kind === 'crash') {
      this.counts.crashes++
      await this.#postgres.crash(random.pick([0, 0, 300, 900]))
      return
    }
    const free = this.#slots.filter(({ app, isBusy }) => app && !isBusy)
    const slot = random.pick(free)
    if (!slot?.app) return
    slot.isBusy = true
    const doing = (
      kind === 'kill'
        ? this.#kill(slot, slot.app)
        : kind === 'stop'
          ? this.#stop(slot, slot.app)
          : this.#deploy(slot, slot.app)
    ).finally(() => {
      slot.isBusy = false
      this.#underWay.delete(doing)
    })
    this.#underWay.add(doing)
  }

  /** Resolves when all processes run again. */
  async calm(): Promise<void> {
    await Promise.all(this.#underWay)
  }

  async end(): Promise<void> {
    await Promise.all(
      this.#slots.map(async ({ app }) => {
        if (!app) return
        this.#killed.add(app)
        await app.kill('SIGKILL')
      }),
    )
  }

  async #kill(slot: Slot, app: ChildApp): Promise<void> {
    this.counts.kills++
    this.#killed.add(app)
    await app.kill('SIGKILL')
    await this.#restart(slot)
  }

  /** Longer than its lease: the others take its executions over, and then it goes on. */
  async #stop(slot: Slot, app: ChildApp): Promise<void> {
    this.counts.stops++
    const { processTimeoutMs } = this.#options
    const from = Date.now()
    app.process.kill('SIGSTOP')
    await sleep(processTimeoutMs * this.#random.between(1.2, 2.5))
    this.stops.push({ pid: app.pid, from, to: Date.now() })
    if (this.#random.next() < 0.2) return this.#kill(slot, app)
    app.process.kill('SIGCONT')
  }

  /** As a deploy does: it may finish what it is doing. */
  async #deploy(slot: Slot, app: ChildApp): Promise<void> {
    this.counts.deploys++
    this.#killed.add(app)
    app.process.kill('SIGTERM')
    const ended = await Promise.race([app.exited, sleep(20_000, 'late' as const)])
    if (ended === 'late') this.failures.push(`${app.pid} did not end after SIGTERM`)
    await app.kill('SIGKILL')
    await this.#restart(slot)
  }

  async #restart(slot: Slot): Promise<void> {
    slot.app = undefined
    await sleep(this.#random.pick([0, 200, 1500]))
    await this.#spawn(slot)
  }

  async #spawn(slot: Slot): Promise<void> {
    const { databaseUrl, ledgerUrl, processTimeoutMs } = this.#options
    const env = {
      DATABASE_URL: databaseUrl,
      LEDGER_URL: ledgerUrl,
      PAWL: JSON.stringify({
        instance: slot.instance,
        processTimeout: processTimeoutMs,
        storeTimeout: '3s',
        drainTimeout: '2s',
      }),
    }
    // A process that starts while PostgreSQL is away ends, and its supervisor starts it again.
    for (let tries = 0; !slot.app; tries++) {
      const app = await spawnApp('chaos.ts', env).catch(async (error) => {
        if (tries >= 20) throw error
        await sleep(200)
        return undefined
      })
      slot.app = app
    }
    const { app } = slot
    app.process.stdout?.on('data', (chunk) => this.#read(String(chunk)))
    let errors = ''
    app.process.stderr?.on('data', (chunk) => {
      errors += chunk
    })
    void app.exited.then((code) => {
      if (!this.#killed.has(app)) this.failures.push(`${app.pid} ended with ${code}: ${errors}`)
    })
  }

  #read(text: string): void {
    for (const line of text.split('\n')) {
      if (!line.startsWith('{')) continue
      try {
        this.warnings.push(JSON.parse(line))
      } catch {
        // Half of a line, of a process that was killed.
      }
    }
  }
}
