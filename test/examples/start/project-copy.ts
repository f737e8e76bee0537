import { execFile } from 'node:child_process'
import { chown, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEachFile } from '../../helpers/cleanup.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../../', import.meta.url))

/** What the examples and the PostgreSQL of the tests need. */
const FILES = [
  ...['package.json', 'tsconfig.json', 'tsconfig.build.json'],
  ...['examples', 'lib', 'dist', 'migrations'],
]

export interface User {
  uid: number
  gid: number
}

export const isRoot = process.geteuid?.() === 0

/** An ordinary user: `nobody` where the tests run as root, and else undefined, who runs them. */
export async function ordinaryUser(): Promise<User | undefined> {
  if (!isRoot) return undefined
  const id = async (flag: string) => Number((await run('id', [flag, 'nobody'])).stdout)
  return { uid: await id('-u'), gid: await id('-g') }
}

const folders = new Set<string>()

afterEachFile(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  folders.clear()
})

/** Makes a temporary folder, mode 700, that is removed after the test file. */
export async function privateFolder(owner?: User): Promise<string> {
  // Not in TMPDIR, which may be a folder that only the user who runs the tests can enter.
  const folder = await mkdtemp('/tmp/pawl-test-')
  folders.add(folder)
  if (owner) await chown(folder, owner.uid, owner.gid)
  return folder
}

/**
 * Copies the project as it is, installed and built, into a folder that its owner alone may enter. The
 * installed files are hard links where that is possible.
 */
export async function copyProject(owner?: User): Promise<string> {
  const copy = join(await privateFolder(owner), 'pawl')
  await mkdir(join(copy, 'test'), { recursive: true })
  const paths = FILES.map((file) => join(root, file))
  await run('cp', ['-a', ...paths, copy])
  await run('cp', ['-a', join(root, 'test/helpers'), join(copy, 'test')])
  if (owner) await run('chown', ['-R', `${owner.uid}:${owner.gid}`, copy])
  const modules = [join(root, 'node_modules'), copy]
  await run('cp', ['-al', ...modules]).catch(() => run('cp', ['-a', ...modules]))
  return copy
}
