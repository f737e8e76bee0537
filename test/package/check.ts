/**
 * Checks the package as its users get it: packed, looked at by publint and are-the-types-wrong,
 * installed into an empty project, imported each way, and used from TypeScript (the programs in
 * consumers/). Run by `npm run check:package`.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
const project = mkdtempSync(join(tmpdir(), 'pawl-package-'))

/** What each subpath gives: all of its functions and classes, or those that a user looks for first. */
const given: Record<string, string[]> = {
  pawl: [
    'CancelledError',
    'DivergenceError',
    'Pawl',
    'PawlError',
    'StepInterruptedError',
    'TerminalError',
    'WorkflowFailedError',
    'WorkflowTimeoutError',
    'currentExecution',
    'step',
    'transaction',
  ],
  'pawl/testing': ['crashTest', 'CrashTestError'],
  'pawl/express': ['idempotency'],
  'pawl/koa': ['idempotency'],
  'pawl/fetch': ['idempotency', 'executionOf'],
  'pawl/client': ['createIdempotentFetch', 'IdempotentFetchError'],
  'pawl/client/persist': ['indexedDbStore', 'localStorageStore'],
  'pawl/client/follow': ['followAsync'],
  'pawl/client/axios': ['idempotencyInterceptor'],
  'pawl/client/ky': ['idempotencyHooks'],
}

/** Those that load what they are for. */
const givenBesidePeers: Record<string, string[]> = {
  'pawl/fastify': ['idempotency'],
  'pawl/hono': ['idempotency'],
  'pawl/nest': ['IdempotencyModule', 'Idempotent', 'CurrentExecution'],
  'pawl/drizzle': ['drizzleTransactions'],
  'pawl/knex': ['knexTransactions'],
  'pawl/kysely': ['kyselyTransactions'],
  'pawl/postgres': ['postgresTransactions'],
  'pawl/prisma': ['prismaTransactions'],
  'pawl/typeorm': ['typeormTransactions'],
}

const peers = [
  ...['express@5', '@types/express@5', 'fastify@5', 'hono@4', 'koa@3', '@types/koa@3'],
  ...['@nestjs/common@12', '@nestjs/core@12', 'reflect-metadata', 'rxjs@7'],
  ...['axios@1', 'ky@1'],
  ...['drizzle-orm', 'kysely', 'knex', 'postgres', 'typeorm', 'pg', '@types/pg@8'],
]

function run(what: string, cwd: string, command: string, ...args: string[]): string {
  process.stdout.write(`${what} … `)
  try {
    const output = execFileSync(command, args, { cwd, encoding: 'utf8', stdio: 'pipe' })
    console.log('ok')
    return output
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string }
    console.log(`failed\n${stdout}\n${stderr}`)
    process.exit(1)
  }
}

function install(what: string, ...packages: string[]): void {
  run(what, project, 'npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', ...packages)
}

/** Loads every subpath, and fails unless it gives what it should. */
function load(what: string, subpaths: Record<string, string[]>): void {
  const program = (load: string) => `(async () => {
  for (const [path, names] of Object.entries(${JSON.stringify(subpaths)})) {
    const seen = await ${load}
    const missing = names.filter((name) => typeof seen[name] !== 'function')
    const extra = path === 'pawl' ? Object.keys(seen).filter((name) => !names.includes(name)) : []
    if (missing.length + extra.length > 0) throw new Error(path + ': ' + Object.keys(seen))
  }
})()`
  writeFileSync(join(project, 'load.mjs'), program('import(path)'))
  run(`import ${what} from ESM`, project, 'node', 'load.mjs')
  writeFileSync(join(project, 'load.cjs'), program('({ ...require(path) })'))
  run(`require ${what} from CommonJS`, project, 'node', '--no-warnings', 'load.cjs')
}

function compile(program: string, ...flags: string[]): void {
  cpSync(join(import.meta.dirname, 'consumers', program), join(project, program))
  const strict = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022']
  run(`types in ${program}`, project, 'npx', 'tsc', ...strict, '--types', 'node', ...flags, program)
}

try {
  const packed = run('pack', root, 'npm', 'pack', '--json', '--pack-destination', project)
  const info = JSON.parse(packed.slice(packed.indexOf('[')))[0]
  const tarball = join(project, info.filename)
  const files: string[] = info.files.map((file: { path: string }) => file.path)
  for (const needed of [
    'migrations/001_executions.sql',
    'README.md',
    'LICENSE',
    'dist/index.d.ts',
  ]) {
    if (!files.includes(needed)) throw new Error(`${needed} is missing from the package`)
  }
  const stray = files.filter((file) => /^(lib|test|bench|examples)\//.test(file))
  if (stray.length > 0) throw new Error(`does not belong in the package: ${stray}`)

  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  for (const path of Object.keys(exports)) {
    const known = { ...given, ...givenBesidePeers }[path.replace(/^\./, 'pawl')]
    if (!known && path !== './package.json') throw new Error(`${path} is not checked`)
  }

  run('publint', root, 'npx', 'publint', tarball, '--strict')
  run('are-the-types-wrong', root, 'npx', 'attw', tarball)

  writeFileSync(join(project, 'package.json'), '{ "private": true }')
  install('install alone', tarball)
  load('what needs nothing else', given)
  run('the command', project, 'npx', 'pawl', '--version')

  install('install beside its peers', ...peers, '@types/node@20', 'typescript@5.9')
  load('what needs its peer', givenBesidePeers)
  compile('core.mts')
  compile('client.mts')
  // The types of the libraries themselves have gaps.
  compile('frameworks.mts', '--skipLibCheck')
  compile('transactions.mts', '--skipLibCheck')
} finally {
  rmSync(project, { recursive: true, force: true })
}
