import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

// Under the root, so that packages are found; git does not see it.
const FOLDER = fileURLToPath(new URL('../../node_modules/.cache/pawl-test/', import.meta.url))

const bundles = new Map<string, Promise<string>>()

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
  const outfile = `${FOLDER}${basename(file, '.ts')}-${process.pid}.mjs`
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
