import { execFile } from 'node:child_process'
import { chown, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { copyBinaries, installedBinaries, notRunnable, whyNotRunnable } from './binaries.ts'
import type { ServerUser } from './server-user.ts'

/** Where a cluster lives: everything in `folder`, which is removed at the end. */
export interface Place {
  folder: string
  /** The folder of PostgreSQL's `bin`, `lib` and `share`. */
  binaries: string
}

/**
 * Makes a temporary folder that belongs to the user, and finds binaries that the user can run. As root,
 * both can be out of the other user's reach: the temporary folder where TMPDIR is private, and node_modules
 * where the project is in a folder such as `/root`. The binaries are copied then.
 *
 * The copy is this cluster's own. It takes half a second, no other process can be in the middle of making
 * it, no other user can have put a program there, and it is removed with the cluster.
 */
export async function makePlace(user: ServerUser): Promise<Place> {
  const installed = installedBinaries()
  const problem = await whyNotRunnable(installed, {})
  if (problem !== null) throw notRunnable(problem)
  const isInReach = (await whyNotRunnable(installed, user)) === null
  if (isInReach) return inTemporaryFolder(user, async () => installed)
  return inTemporaryFolder(user, async (folder) => {
    const copy = join(folder, 'native')
    await copyBinaries(installed, copy, user)
    const problem = await whyNotRunnable(copy, user)
    if (problem !== null) throw new Error(problem)
    return copy
  })
}

/** Makes the place in the first temporary folder in which the user can work. */
async function inTemporaryFolder(
  user: ServerUser,
  provideBinaries: (folder: string) => Promise<string>,
): Promise<Place> {
  const problems: string[] = []
  for (const base of new Set([tmpdir(), '/tmp', '/var/tmp'])) {
    let folder: string | undefined
    try {
      folder = await mkdtemp(join(base, 'pawl-postgres-'))
      await handOver(folder, user)
      return { folder, binaries: await provideBinaries(folder) }
    } catch (error) {
      problems.push((error as Error).message)
      if (folder) await rm(folder, { recursive: true, force: true })
    }
  }
  throw notRunnable(problems.join('; '))
}

/** Makes the folder the user's. Rejects where the user cannot enter it. */
async function handOver(folder: string, user: ServerUser): Promise<void> {
  if (user.uid === undefined) return
  await chown(folder, user.uid, user.gid)
  const enter = ['-c', 'cd "$1"', 'sh', folder]
  await promisify(execFile)('/bin/sh', enter, { ...user, cwd: '/' }).catch((error) => {
    // Without the capability to become another user, a container's root runs nothing as one.
    if (error.code === 'EPERM') throw new Error('This root may not run programs as another user')
    throw new Error(`The user that PostgreSQL runs as cannot enter ${folder}`)
  })
}
