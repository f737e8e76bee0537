import { readFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { sources } from './sources.ts'

// Under the root, so that packages are found; git does not see it.
const FOLDER = fileURLToPath(new URL('../../node_modules/.cache/pawl-test/', import.meta.url))

const bundles = new Map<string, Promise<string>>()

// By their names in examples, which import `pawl` as everybody does.
const published = new Map(sources().map(({ name, file }) => [name, file]))

/**
 * A TypeScript program as one file that Node runs as it is: tests start many processes, and compiling in
 * each of them takes longer than most of them live.
 */
export function bundle(file: string): Promise<string> {
  const known = bundles.get(file) ?? make(file)
  bundles.set(file, known)
  return known
}

async function make(file: string): Promise<string> {
  const name = `${basename(dirname(file))}-${basename(file, '.ts')}`
  const outfile = `${FOLDER}${name}-${process.pid}.mjs`
  await build({
    entryPoints: [file],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
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
  return outfile
}
