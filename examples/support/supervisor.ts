import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { endChild, startChild, whenReady } from './child.ts'

export interface ServerState {
  state: 'starting' | 'up' | 'killed' | 'restarting' | 'stopped'
  pid: number | null
}

const MAX_FAILED_STARTS = 3

export interface SupervisorParts {
  /** The program, and what it finds in its environment. */
  file: URL
  env: Record<string, string>
  /** How long it stays dead. */
  pauseMs: number
  changed: (state: ServerState) => void
  /** It does not start any more. */
  gaveUp: (error: Error) => void
}

/** Keeps a server's process alive: when it dies, there is a new one. */
export class Supervisor {
  #child: ChildProcess | undefined
  #starts = 0
  #failedStarts = 0
  #wasUp = false
  #stopping = false
  readonly #parts: SupervisorParts

  constructor(parts: SupervisorParts) {
    this.#parts = parts
  }

  /** Resolves to the server's first message when it is up; from then on it is kept up. */
  async start<T>(): Promise<T> {
    if (this.#stopping) throw new Error('The server was stopped before it started')
    const child = startChild(this.#parts.file, this.#parts.env)
    this.#child = child
    this.#starts += 1
    this.#tell(this.#starts === 1 ? 'starting' : 'restarting')
    child.once('exit', () => this.#again())
    let ready: T
    try {
      ready = await whenReady<T>(child)
    } catch (error) {
      this.#failedStarts += 1
      throw error
    }
    this.#failedStarts = 0
    this.#wasUp = true
    this.#tell('up')
    return ready
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
    if (this.#child) await endChild(this.#child)
  }

  async #again(): Promise<void> {
    if (this.#stopping) return this.#tell('stopped')
    if (!this.#wasUp) return // Whoever called `start` knows.
    this.#tell('killed')
    await sleep(this.#parts.pauseMs)
    if (this.#stopping) return
    try {
      await this.start()
    } catch (error) {
      if (this.#failedStarts >= MAX_FAILED_STARTS) this.#parts.gaveUp(error as Error)
    }
  }

  #tell(state: ServerState['state']): void {
    this.#parts.changed({ state, pid: this.#child?.pid ?? null })
  }
}
