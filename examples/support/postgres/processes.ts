import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long PostgreSQL may take to stop before it is stopped less gently, in ms. */
const STOP_MS = 15_000

/** The fast shutdown of PostgreSQL; where that takes too long the immediate one, and then SIGKILL. */
export async function stopServer(server: ChildProcess): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    const patience = new AbortController()
    const tooLong = sleep(STOP_MS, false, { signal: patience.signal }).catch(() => false)
    const ended = hasEnded(server).then(() => true)
    server.kill(signal)
    const done = await Promise.race([ended, tooLong])
    patience.abort()
    if (done) return
  }
  await hasEnded(server)
}

/** Resolves when the process has ended, or if it could not be started at all. */
export async function hasEnded(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  await once(child, 'exit')
}

/** Kills a process that has a process group of its own, and its children. */
export function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** Collects the end of what a process prints, or why it could not be started. */
export function outputOf(child: ChildProcess): {
  read: () => string
  /** Resolves to false when the process has ended and all of its output was read. */
  closed: Promise<false>
} {
  let output = ''
  const add = (text: unknown) => {
    output = (output + text).slice(-4_000)
  }
  child.stdout?.on('data', add)
  child.stderr?.on('data', add)
  child.once('error', add)
  const closed = new Promise<false>((resolve) => child.once('close', () => resolve(false)))
  return { read: () => output, closed }
}
