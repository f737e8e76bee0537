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

const orms = ['drizzle', 'knex', 'kysely', 'postgres', 'prisma', 'typeorm']
const client = (load: string) =>
  `${load}; const seen = [fetch.createIdempotentFetch, persist.indexedDbStore, axios.idempotencyInterceptor, ky.idempotencyHooks]
   if (seen.some((part) => typeof part !== 'function')) throw new Error(String(seen))`
const expected =
  'DivergenceError Pawl PawlError StepInterruptedError TerminalError currentExecution step transaction'
const program = (load: string) =>
  `${load}; const seen = Object.keys(pawl).sort().join(' ')
   if (seen !== '${expected}') throw new Error(seen)
   const parts = [express.idempotency, testing.crashTest, testing.CrashTestError]
   if (parts.some((part) => typeof part !== 'function')) throw new Error(String(parts))`

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
  const types = ['@types/express@5', '@types/node@20', 'typescript@5.9']
  const packages = [tarball, 'express@5', 'axios@1', 'ky@1', ...types]
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
    program(
      "import * as pawl from 'pawl'; import * as express from 'pawl/express'; import * as testing from 'pawl/testing'",
    ),
  )
  run('import from ESM', project, 'node', 'esm.mjs')

  writeFileSync(
    join(project, 'cjs.cjs'),
    program(
      "const pawl = { ...require('pawl') }; const express = require('pawl/express'); const testing = require('pawl/testing')",
    ),
  )
  run('require from CommonJS', project, 'node', '--no-warnings', 'cjs.cjs')

  writeFileSync(
    join(project, 'client.mjs'),
    client(
      "import * as fetch from 'pawl/client'; import * as persist from 'pawl/client/persist'; import * as axios from 'pawl/client/axios'; import * as ky from 'pawl/client/ky'",
    ),
  )
  run('import the client from ESM', project, 'node', 'client.mjs')

  writeFileSync(
    join(project, 'client.cjs'),
    client(
      "const fetch = require('pawl/client'); const persist = require('pawl/client/persist'); const axios = require('pawl/client/axios'); const ky = require('pawl/client/ky')",
    ),
  )
  run('require the client from CommonJS', project, 'node', '--no-warnings', 'client.cjs')

  writeFileSync(
    join(project, 'client.mts'),
    `import axios from 'axios'
import ky from 'ky'
import { createIdempotentFetch, type IdempotentResponse } from 'pawl/client'
import { indexedDbStore } from 'pawl/client/persist'
import { idempotencyInterceptor } from 'pawl/client/axios'
import { idempotencyHooks } from 'pawl/client/ky'
const plain: typeof fetch = createIdempotentFetch({ maxAttempts: 3 })
const kept = createIdempotentFetch({ persist: indexedDbStore('shop') })
const response: IdempotentResponse = await kept('/orders', { method: 'POST', key: 'k' })
for await (const { key, request, response, error } of kept.resume()) {
  console.log(key.length, request.url, response?.attempts, error)
}
axios.create().interceptors.request.use(idempotencyInterceptor(axios, { budget: false }))
const { attempts, replayed } = await axios.get<string>('/orders')
const api = ky.extend(idempotencyHooks({ key: ({ url }) => url }))
await ky.create({ fetch: plain }).post('/orders').json()
// @ts-expect-error only a client with persist can resume
createIdempotentFetch().resume()
export const seen: [number | undefined, boolean | undefined, boolean, typeof api] = [attempts, replayed, response.replayed, api]
`,
  )
  writeFileSync(
    join(project, 'typed.mts'),
    `import express from 'express'
import { Pawl, PawlError, type Execution } from 'pawl'
import { idempotency, type IdempotencyOptions } from 'pawl/express'
import { crashTest, type CrashTestReport, type TestableDatabase } from 'pawl/testing'
const pawl = new Pawl({ database: 'postgres://localhost/app', processTimeout: '10s' })
const options: IdempotencyOptions<express.Request> = { scope: (req) => req.ip ?? 'unknown', wait: 0 }
express().use(idempotency(pawl, options)).post('/', (req, res) => {
  const execution: Execution | undefined = req.execution
  res.json({ attempt: execution?.attempt })
})
// @ts-expect-error there is no such option
idempotency(pawl, { scop: () => 'x' })
export const code: string = new PawlError('not-started', 'a', 'b').code
export const test = (database: TestableDatabase): Promise<CrashTestReport> =>
  crashTest(
    ({ database, schema }) => {
      const pawl = new Pawl({ database, schema })
      return { app: express(), stop: () => pawl.stop() }
    },
    { path: '/orders', body: { item: 'book' } },
    { database, check: ({ key, answer }) => [key, answer.status] },
  )
`,
  )
  // The libraries themselves: Pawl loads two of them, and its types are theirs.
  const installed = ['drizzle-orm', 'kysely', 'knex', 'postgres', 'typeorm', 'pg', '@types/pg@8']
  run(
    'install ORMs',
    project,
    'npm',
    'install',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    ...installed,
  )
  const transactions = (load: (orm: string) => string) =>
    `(async () => {
  for (const orm of ${JSON.stringify(orms)}) {
    const seen = await ${load('orm')}
    if (typeof seen[orm + 'Transactions'] !== 'function') throw new Error(orm + ': ' + Object.keys(seen))
  }
})()`
  writeFileSync(
    join(project, 'orms.mjs'),
    transactions((orm) => `import('pawl/' + ${orm})`),
  )
  run('import transactions from ESM', project, 'node', 'orms.mjs')
  writeFileSync(
    join(project, 'orms.cjs'),
    transactions((orm) => `require('pawl/' + ${orm})`),
  )
  run('require transactions from CommonJS', project, 'node', '--no-warnings', 'orms.cjs')
  writeFileSync(
    join(project, 'orms.mts'),
    `import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import knex from 'knex'
import { Kysely, PostgresDialect } from 'kysely'
import { Pool } from 'pg'
import postgres from 'postgres'
import { DataSource } from 'typeorm'
import { step, transaction } from 'pawl'
import { drizzleTransactions } from 'pawl/drizzle'
import { knexTransactions } from 'pawl/knex'
import { kyselyTransactions } from 'pawl/kysely'
import { postgresTransactions } from 'pawl/postgres'
import { prismaTransactions, type PrismaTransaction } from 'pawl/prisma'
import { typeormTransactions } from 'pawl/typeorm'
const pool = new Pool()
const kysely = new Kysely<{ orders: { item: string } }>({ dialect: new PostgresDialect({ pool }) })
declare const prisma: { $transaction<T>(work: (tx: PrismaTransaction & { order: { count(): Promise<number> } }) => Promise<T>): Promise<T> }
export const used: Promise<unknown>[] = [
  transaction('a', { on: drizzleTransactions(drizzle({ client: pool })) }, (tx) => tx.execute(sql\`select 1\`)),
  transaction('b', { on: knexTransactions(knex.default({ client: 'pg' })) }, (trx) => trx('orders').insert({ item: 'a' })),
  transaction('c', { on: kyselyTransactions(kysely), isolation: 'serializable' }, (tx) => tx.selectFrom('orders').select('item').execute()),
  transaction('d', { on: postgresTransactions(postgres()) }, (tx) => tx\`select 1\`),
  transaction('e', { on: typeormTransactions(new DataSource({ type: 'postgres' })) }, (manager) => manager.query('select 1')),
  step('f', async ({ idempotencyKey }) => idempotencyKey.length),
]
export const count: Promise<number> = transaction('g', { on: prismaTransactions(prisma) }, (tx) => tx.order.count())
// @ts-expect-error there is no such table
transaction('h', { on: kyselyTransactions(kysely) }, (tx) => tx.selectFrom('order').execute())
`,
  )

  const flags = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022']
  run('types', project, 'npx', 'tsc', ...flags, 'typed.mts')
  run('types of the client', project, 'npx', 'tsc', ...flags, 'client.mts')
  run('types of transactions', project, 'npx', 'tsc', ...flags, '--skipLibCheck', 'orms.mts')
  run('the command', project, 'npx', 'pawl', '--version')
} finally {
  rmSync(project, { recursive: true, force: true })
}
