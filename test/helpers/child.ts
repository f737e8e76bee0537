import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.ts'
import { afterEachFile } from './cleanup.ts'

/** An app in a process of its own. */
export interface ChildApp {
  /** What it printed as its first line. */
  url: string
  pid: number
  process: ChildProcess
  /** Resolves to its exit code, or the signal that ended it. */
  exited: Promise<number | NodeJS.Signals>
  /** Default SIGKILL. Resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Resolves to the first line printed from now on that starts with this. */
  line(start: string): Promise<string>
}

const running = new Set<ChildApp>()

/** @param file a TypeScript file in test/apps that prints its URL as its first line */
export async function spawnApp(
  file: string,
  env: Record<string, string | undefined> = {},
): Promise<ChildApp> {
  const path = await bundle(fileURLToPath(new URL(`../apps/${file}`, import.meta.url)))
  return spawnProgram([path], env)
}

/** Runs a program of Node's that prints something as its first line. */
export async function spawnProgram(
  args: string[],
  env: Record<string, string | undefined> = {},
): Promise<ChildApp> {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env } as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const exited = once(child, 'exit').then(([code, signal]) => code ?? signal)
  const lines = createInterface({ input: child.stdout })
  const url = await Promise.race([
    once(lines, 'line').then(([line]) => line as string),
    exited.then((code) => {
      throw new Error(`${args.join(' ')} ended with ${code} before it listened:\n${errors}`)
    }),
  ])
  const app: ChildApp = {
    url,
    pid: child.pid as number,
    process: child,
    exited,
    async kill(signal = 'SIGKILL') {
      child.kill(signal)
      if (signal === 'SIGKILL' || signal === 'SIGTERM') await exited
    },
    line: (start) =>
      new Promise((resolve) => {
        lines.on('line', function listen(line) {
          if (!line.startsWith(start)) return
          lines.off('line', listen)
          resolve(line)
        })
      }),
  }
  running.add(app)
  exited.then(() => running.delete(app))
  return app
}

afterEachFile(async () => {
  await Promise.all([...running].map((app) => app.kill()))
})
