import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Starts one of the example's processes. Each gets a process group of its own, so that Ctrl-C in
 * the terminal reaches `main.ts` alone, which then ends the others in the right order. And each
 * ends by itself when its channel to `main.ts` closes, so that nothing is left behind, whatever
 * happens to `main.ts`.
 */
export function startChild(file: URL, env: Record<string, string>): ChildProcess {
  return fork(file, {
    execArgv: ['--import', import.meta.resolve('tsx')],
    env: { ...process.env, ...env },
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
}

/** The child's first message, which says that it is ready. */
export function whenReady<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once('message', (message) => resolve(message as T))
    child.once('error', reject)
    child.once('exit', (code, signal) => reject(new Error(`it ended early (${signal ?? code})`)))
  })
}

/** Asks the child to end and waits until it has; one that does not is killed. */
export async function endChild(child: ChildProcess, how: 'SIGTERM' | 'disconnect'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  if (how === 'SIGTERM') child.kill(how)
  else if (child.connected) child.disconnect()

  const patience = new AbortController()
  const tooLong = sleep(10_000, undefined, { signal: patience.signal }).then(() =>
    child.kill('SIGKILL'),
  )
  await ended
  patience.abort()
  await tooLong.catch(() => {})
}
