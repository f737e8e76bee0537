import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PGlite } from '@electric-sql/pglite'

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/pawl-test/', import.meta.url))

/**
 * Opens an empty PGlite in memory. Its data directory is made once and loaded from then on: making it takes five
 * times as long.
 */
export async function openPglite(): Promise<PGlite> {
  const file = emptyDirectory()
  if (!existsSync(file)) return makePglite(file)
  const engine = new PGlite({ loadDataDir: new Blob([await readFile(file)]) })
  await engine.waitReady
  return engine
}

/** The file for the data directory of a PGlite that nobody has used. */
function emptyDirectory(): string {
  const main = createRequire(import.meta.url).resolve('@electric-sql/pglite')
  const manifest = join(dirname(main), '../package.json')
  const { version } = JSON.parse(readFileSync(manifest, 'utf8'))
  return join(CACHE, `pglite-${version}.tar`)
}

/** Makes a PGlite, and writes its data directory to the file. */
async function makePglite(file: string): Promise<PGlite> {
  const engine = new PGlite()
  // It waits for ever if it is asked before.
  await engine.waitReady
  const directory = await engine.dumpDataDir('none')
  await mkdir(CACHE, { recursive: true })
  // Workers may make it at the same time.
  const unfinished = `${file}.${randomUUID()}`
  await writeFile(unfinished, Buffer.from(await directory.arrayBuffer()))
  await rename(unfinished, file)
  return engine
}
