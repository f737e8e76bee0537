import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEachTest } from '../../helpers/cleanup.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import { descendantsOf, stillRunning } from '../processes.ts'
import type { User } from './project-copy.ts'

/** Processes start, and a busy machine takes its time. */
const SLOW_MS = 100_000

export interface CommandOptions {
  cwd: string
  /** Default: the user who runs the tests. */
  user?: User | undefined
  env?: Record<string, string>
}

/** A command that runs as in a terminal of its own: it is the leader of its process group. */
export class Command {
  readonly process: ChildProcess
  /** Resolves to the exit code, or to the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>
  output = ''

  constructor([program, ...args]: [string, ...string[]], { cwd, user, env }: CommandOptions) {
    // What npm tells the scripts that it runs would make these commands believe that they are such a script's.
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(npm_|VITEST|NODE_ENV|NODE_OPTIONS|DATABASE_URL|PORT$|PAWL_)/.test(name),
    )
    this.process = spawn(program, args, {
      cwd,
      ...user,
      env: { ...Object.fromEntries(inherited), HOME: cwd, ...env },
      detached: true,
    })
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.on('data', (chunk) => {
        this.output += chunk
      })
    }
    this.exited = once(this.process, 'exit').then(([code, signal]) => code ?? signal)
    running.add(this)
  }

  /** Resolves to the first match in what it prints. Rejects if it ends before. */
  async prints(pattern: RegExp): Promise<RegExpExecArray> {
    return waitFor(
      `${pattern} in the output`,
      () => {
        const found = pattern.exec(this.output)
        if (!found && this.#ended) throw new Error(`It ended early:\n${this.output}`)
        return found
      },
      SLOW_MS,
    )
  }

  /** Sends the signal to the process group, as a terminal does. */
  signalGroup(signal: NodeJS.Signals): void {
    process.kill(-(this.process.pid as number), signal)
  }

  /** Its processes at this moment, but not itself. */
  descendants() {
    return descendantsOf(this.process.pid as number)
  }

  get #ended(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null
  }

  /** Ends what a failed test has left, from the bottom, so that each process can clean up. */
  async end(): Promise<void> {
    if (this.#ended) return
    const processes = await this.descendants()
    this.signalGroup('SIGINT')
    await waitFor('the end', async () => (await stillRunning(processes)).length === 0, SLOW_MS)
  }
}

const running = new Set<Command>()

afterEachTest(async () => {
  for (const command of running) await command.end()
  running.clear()
})
