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

const expected = '["Pawl","PawlError"] function'
const program = (load: string) =>
  `${load}; const seen = JSON.stringify(Object.keys(pawl).sort()) + ' ' + typeof express.idempotency
   if (seen !== '${expected}') throw new Error(seen)`

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
  const packages = [tarball, 'express@5', '@types/express@5', '@types/node@20', 'typescript@5.9']
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
    program("import * as pawl from 'pawl'; import * as express from 'pawl/express'"),
  )
  run('import from ESM', project, 'node', 'esm.mjs')

  writeFileSync(
    join(project, 'cjs.cjs'),
    program("const pawl = { ...require('pawl') }; const express = require('pawl/express')"),
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
  const flags = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022']
  run('types', project, 'npx', 'tsc', ...flags, 'typed.mts')
  run('the command', project, 'npx', 'pawl', '--version')
} finally {
  rmSync(project, { recursive: true, force: true })
}
