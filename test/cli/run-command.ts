/** The `pawl` command, run in a process of its own or, which is cheaper, in this one. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { format, promisify } from 'node:util'
import { vi } from 'vitest'
import { bundle } from '../helpers/bundle.ts'

/** What a command printed, and its exit code. */
export interface CommandResult {
  code: number
  stdout: string
  stderr: string
}

const FILE = fileURLToPath(new URL('../../lib/cli/pawl.ts', import.meta.url))

/** Environment variables; undefined removes one. */
type Environment = Record<string, string | undefined>

/** The program, which Node runs as it is. */
export const commandFile = () => bundle(FILE)

/** Runs the command as a shell does, in a process of its own, to its end. Never rejects. */
export async function runProcess(args: string[], env: Environment): Promise<CommandResult> {
  const all: NodeJS.ProcessEnv = { ...process.env, ...env }
  for (const name of Object.keys(env)) if (env[name] === undefined) delete all[name]
  const command = [await commandFile(), ...args]
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, command, { env: all })
    return { code: 0, stdout, stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as CommandResult
    return { code, stdout, stderr }
  }
}

let commands = 0

/**
 * Runs the same program in this process, one at a time: a process takes half a second of a core to start. Not for
 * what ends its process itself: `work`, a `--module`, a mistake in the arguments.
 */
export async function runHere(args: string[], env: Environment): Promise<CommandResult> {
  const printed = { log: '', error: '' }
  const { argv, exitCode } = process
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value)
  const spies = (['log', 'error'] as const).map((name) =>
    vi.spyOn(console, name).mockImplementation((...parts) => {
      printed[name] += `${format(...parts)}\n`
    }),
  )
  try {
    process.exitCode = undefined
    process.argv = [process.execPath, FILE, ...args]
    // The module runs what the arguments say, each time it is loaded; a number makes it another one.
    const module = `${FILE}?command=${++commands}`
    await import(/* @vite-ignore */ module)
    return { code: Number(process.exitCode ?? 0), stdout: printed.log, stderr: printed.error }
  } finally {
    process.argv = argv
    process.exitCode = exitCode
    for (const spy of spies) spy.mockRestore()
    vi.unstubAllEnvs()
  }
}
