import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { endChild, startChild, whenReady } from './child.ts'
import { PACE } from './pace.ts'

export interface ShopState {
  state: 'starting' | 'up' | 'killed' | 'restarting' | 'stopped'
  pid: number | null
}

/** Long enough to be seen on the page. */
const PAUSE_MS = 600 * PACE
const MAX_FAILED_STARTS = 3

/** Keeps the shop's process alive: when it dies, there is a new one. */
export class Supervisor {
  #child: ChildProcess | undefined
  #starts = 0
  #failedStarts = 0
  #stopping = false
  readonly #env: Record<string, string>
  readonly #changed: (state: ShopState) => void
  readonly #gaveUp: (error: Error) => void

  constructor(
    env: Record<string, string>,
    changed: (state: ShopState) => void,
    gaveUp: (error: Error) => void,
  ) {
    this.#env = env
    this.#changed = changed
    this.#gaveUp = gaveUp
  }

  /** Resolves when the shop is up; from then on it is kept up. */
  async start(): Promise<void> {
    const child = startChild('./shop.ts', this.#env)
    this.#child = child
    this.#starts += 1
    this.#tell(this.#starts === 1 ? 'starting' : 'restarting')
    child.once('exit', () => this.#again())
    try {
      await whenReady(child)
    } catch (error) {
      this.#failedStarts += 1
      throw error
    }
    this.#failedStarts = 0
    this.#tell('up')
  }

  /** What a crash, an out-of-memory killer or a pulled plug does: no warning, no last words. */
  async kill(): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const dead = once(child, 'exit')
    child.kill('SIGKILL')
    await dead
  }

  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#child) await endChild(this.#child, 'SIGTERM')
  }

  async #again(): Promise<void> {
    if (this.#stopping) return this.#tell('stopped')
    this.#tell('killed')
    await sleep(PAUSE_MS)
    if (this.#stopping) return
    try {
      await this.start()
    } catch (error) {
      if (this.#failedStarts >= MAX_FAILED_STARTS) this.#gaveUp(error as Error)
    }
  }

  #tell(state: ShopState['state']): void {
    this.#changed({ state, pid: this.#child?.pid ?? null })
  }
}
