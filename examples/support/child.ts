import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { StartError } from './start-error.ts'

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

/** Resolves to the child's first message, which says that it is ready. Rejects if the child could not start. */
export function whenReady<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once('message', (message: T & { failed?: string }) => {
      if (message.failed === undefined) resolve(message)
      else reject(new StartError(message.failed))
    })
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      reject(new StartError(`One of its processes ended early (${signal ?? `exit code ${code}`}).`))
    })
  })
}

/** Ends the child with SIGTERM and resolves when it has ended. It is killed if that takes longer than `patienceMs`. */
export async function endChild(child: ChildProcess, patienceMs = 10_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')

  const patience = new AbortController()
  const tooLong = sleep(patienceMs, undefined, { signal: patience.signal }).then(() =>
    child.kill('SIGKILL'),
  )
  await ended
  patience.abort()
  await tooLong.catch(() => {})
}
