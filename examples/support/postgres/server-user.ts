import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { StartError } from '../start-error.ts'

/** Options for `spawn` that run a program as another user; empty for the user of this process. */
export type ServerUser = { uid: number; gid: number } | { uid?: never; gid?: never }

/** PostgreSQL's own user where the system has one; every system has `nobody`. */
const NAMES = ['postgres', '_postgres', 'nobody']

/** The user that PostgreSQL runs as: this process's, unless that is root, as which PostgreSQL refuses to run. */
export async function serverUser(): Promise<ServerUser> {
  if (process.geteuid?.() !== 0) return {}
  for (const name of NAMES) {
    try {
      return { uid: await id('-u', name), gid: await id('-g', name) }
    } catch {
      // No user of this name.
    }
  }
  throw new StartError(
    `PostgreSQL refuses to run as root, and the system has none of the users ${NAMES.join(', ')}. Run this ` +
      'as an ordinary user, or set DATABASE_URL to a PostgreSQL that runs already.',
  )
}

async function id(flag: '-u' | '-g', name: string): Promise<number> {
  const { stdout } = await promisify(execFile)('id', [flag, name])
  // Node takes a 32-bit signed number: macOS's nobody is -2, which `id` prints as 4294967294.
  return Number(stdout) | 0
}
