import { existsSync } from 'node:fs'
import { chmod, readdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { Command, type CommandOptions } from './command.ts'
import { copyProject, isRoot, ordinaryUser, privateFolder } from './project-copy.ts'

/** A project is copied, and PostgreSQL initialised; a busy machine takes its time. */
const SLOW = { timeout: 120_000 }

/** Runs the example shop, looks at its page, and ends it. Resolves to the exit code. */
async function useShop(options: CommandOptions): Promise<unknown> {
  const shop = new Command(['npm', 'start'], { ...options, env: { PORT: '0', ...options.env } })
  const [, url = ''] = await shop.prints(/Page\s+(http\S+)/)
  expect((await fetch(url)).status).toBe(200)
  shop.signalGroup('SIGINT')
  return shop.exited
}

/** Runs the PostgreSQL of the tests, and ends it. Resolves to its data directory. */
async function useTestPostgres(options: CommandOptions): Promise<string> {
  const program = 'umask 077 && exec node --import tsx test/helpers/postgres-process.ts'
  const postgres = new Command(['sh', '-c', program], options)
  const [line] = await postgres.prints(/\{.*\}/)
  const { directory } = JSON.parse(line)
  expect(existsSync(directory)).toBe(true)
  postgres.process.stdin?.end()
  expect(await postgres.exited, postgres.output).toBe(0)
  expect(existsSync(dirname(directory))).toBe(false)
  return directory
}

describe.runIf(isRoot)('as root, in a folder that only root may enter', SLOW, () => {
  let cwd: string
  beforeAll(async () => {
    cwd = await copyProject()
  }, SLOW.timeout)

  it('runs the example and the PostgreSQL of the tests, and leaves nothing in the temporary folder', async () => {
    const TMPDIR = await privateFolder()
    await chmod(TMPDIR, 0o711)
    expect(await useShop({ cwd, env: { TMPDIR } })).toBe(0)
    expect((await useTestPostgres({ cwd, env: { TMPDIR } })).startsWith(TMPDIR)).toBe(true)
    expect((await readdir(TMPDIR)).filter((name) => name.startsWith('pawl-'))).toEqual([])
  })

  it('works in another temporary folder when TMPDIR is one that only root may enter', async () => {
    const TMPDIR = await privateFolder()
    expect((await useTestPostgres({ cwd, env: { TMPDIR } })).startsWith(TMPDIR)).toBe(false)
    expect((await readdir(TMPDIR)).filter((name) => name.startsWith('pawl-'))).toEqual([])
  })
})

describe('as an ordinary user', SLOW, () => {
  it("runs the example and the PostgreSQL of the tests in a folder of the user's", async () => {
    const user = await ordinaryUser()
    const cwd = await copyProject(user)
    const TMPDIR = await privateFolder(user)
    expect(await useShop({ cwd, user, env: { TMPDIR } })).toBe(0)
    expect((await useTestPostgres({ cwd, user, env: { TMPDIR } })).startsWith(TMPDIR)).toBe(true)
    expect((await readdir(TMPDIR)).filter((name) => name.startsWith('pawl-'))).toEqual([])
  })
})
