/**
 * Checks the package as its users get it: packed, looked at by publint and are-the-types-wrong,
 * installed into an empty project, and imported each way. Run by `npm run check:package`.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
const project = mkdtempSync(join(tmpdir(), 'pawl-package-'))

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

const expected = '["Pawl","PawlError"]'
const program = (load: string) =>
  `${load}; const seen = JSON.stringify(Object.keys(pawl).sort())
   if (seen !== '${expected}') throw new Error(seen)`
/** Subpaths, and what each must give. */
const adapters = {
  express: 'idempotency',
  fastify: 'idempotency',
  fetch: 'idempotency',
  hono: 'idempotency',
  koa: 'idempotency',
  nest: 'IdempotencyModule',
}
const check = (name: string, given: string) =>
  `if (typeof ${name}.${given} !== 'function') throw new Error('pawl/${name} gives no ${given}')`

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

  run('publint', root, 'npx', 'publint', tarball, '--strict')
  run('are-the-types-wrong', root, 'npx', 'attw', tarball)

  writeFileSync(join(project, 'package.json'), '{ "private": true }')
  const packages = [
    tarball,
    'express@5',
    '@types/express@5',
    'fastify@5',
    'hono@4',
    'koa@3',
    '@types/koa@3',
    '@nestjs/common@12',
    '@nestjs/core@12',
    'reflect-metadata',
    'rxjs@7',
    '@types/node@20',
    'typescript@5.9',
  ]
  run(
    'install',
    project,
    'npm',
    'install',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    ...packages,
  )

  writeFileSync(
    join(project, 'esm.mjs'),
    Object.entries(adapters).reduce(
      (text, [name, given]) =>
        `import * as ${name} from 'pawl/${name}'; ${text}; ${check(name, given)}`,
      program("import * as pawl from 'pawl'"),
    ),
  )
  run('import from ESM', project, 'node', 'esm.mjs')

  writeFileSync(
    join(project, 'cjs.cjs'),
    Object.entries(adapters).reduce(
      (text, [name, given]) =>
        `${text}; const ${name} = require('pawl/${name}'); ${check(name, given)}`,
      program("const pawl = { ...require('pawl') }"),
    ),
  )
  run('require from CommonJS', project, 'node', '--no-warnings', 'cjs.cjs')

  writeFileSync(
    join(project, 'typed.mts'),
    `import express from 'express'
import { Pawl, PawlError, type Execution } from 'pawl'
import { idempotency, type IdempotencyOptions } from 'pawl/express'
const pawl = new Pawl({ database: 'postgres://localhost/app', processTimeout: '10s' })
const options: IdempotencyOptions<express.Request> = { scope: (req) => req.ip ?? 'unknown', wait: 0 }
express().use(idempotency(pawl, options)).post('/', (req, res) => {
  const execution: Execution | undefined = req.execution
  res.json({ attempt: execution?.attempt })
})
// @ts-expect-error there is no such option
idempotency(pawl, { scop: () => 'x' })
export const code: string = new PawlError('not-started', 'a', 'b').code
`,
  )
  writeFileSync(
    join(project, 'frameworks.mts'),
    `import { Module } from '@nestjs/common'
import { fastify, type FastifyRequest } from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { Pawl, type Execution } from 'pawl'
import { idempotency as forFastify } from 'pawl/fastify'
import { executionOf, idempotency as forFetch } from 'pawl/fetch'
import { idempotency as forHono } from 'pawl/hono'
import { idempotency as forKoa } from 'pawl/koa'
import { CurrentExecution, Idempotent, IdempotencyModule, type NestRequest } from 'pawl/nest'
const pawl = new Pawl({ database: 'postgres://localhost/app' })

const app = fastify()
await app.register(forFastify, { pawl, scope: (request: FastifyRequest) => request.ip, wait: 0 })
app.post('/', { config: { idempotency: { resumable: true } } }, async (request) => {
  const execution: Execution | undefined = request.execution
  return { attempt: execution?.attempt }
})
app.post('/free', { config: { idempotency: false } }, async () => 'x')

const hono = new Hono().use(forHono(pawl, { scope: (c) => c.req.header('x-user') ?? '' }))
hono.post('/', (c) => c.json({ attempt: c.get('execution')?.attempt }))

new Koa().use(forKoa(pawl, { scope: (ctx) => ctx.ip }))

export const POST = forFetch(pawl)(async (request, context: { params: Promise<{ id: string }> }) =>
  Response.json({ attempt: executionOf(request)?.attempt, ...(await context.params) }))
const handle = forFetch<{ event: { request: Request } }>(pawl, { request: ({ event }) => event.request })
export const response: Promise<Response> = handle(() => new Response('x'))({ event: { request: new Request('http://x') } })
// @ts-expect-error where is the request?
forFetch<{ event: { request: Request } }>(pawl)

interface Signed extends NestRequest { user: { id: string } }
class Orders { create(_: Execution) {} }
Idempotent({ wait: 0 })(Orders.prototype, 'create', Object.getOwnPropertyDescriptor(Orders.prototype, 'create')!)
Idempotent(false)(Orders)
CurrentExecution()(Orders.prototype, 'create', 0)
Module({ imports: [IdempotencyModule.forRoot({ pawl, scope: (request: Signed) => request.user.id })] })(class {})
`,
  )
  const flags = [
    '--strict',
    '--noEmit',
    '--module',
    'nodenext',
    '--target',
    'es2022',
    '--types',
    'node',
  ]
  run('types', project, 'npx', 'tsc', ...flags, 'typed.mts')
  run(
    'types of the frameworks',
    project,
    'npx',
    'tsc',
    ...flags,
    '--skipLibCheck',
    'frameworks.mts',
  )
  run('the command', project, 'npx', 'pawl', '--version')
} finally {
  rmSync(project, { recursive: true, force: true })
}
