import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
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
  const engine = new PGlite({ loadDataDir: new Blob([await readFile(await emptyDirectory())]) })
  await engine.waitReady
  return engine
}

/** The data directory of a PGlite that nobody has used, as a file. */
async function emptyDirectory(): Promise<string> {
  const main = createRequire(import.meta.url).resolve('@electric-sql/pglite')
  const manifest = join(dirname(main), '../package.json')
  const { version } = JSON.parse(await readFile(manifest, 'utf8'))
  const file = join(CACHE, `pglite-${version}.tar`)
  if (existsSync(file)) return file
  const engine = new PGlite()
  // It waits for ever if it is asked before.
  await engine.waitReady
  const directory = await engine.dumpDataDir('none')
  await engine.close()
  await mkdir(CACHE, { recursive: true })
  // Workers may make it at the same time.
  const unfinished = `${file}.${randomUUID()}`
  await writeFile(unfinished, Buffer.from(await directory.arrayBuffer()))
  await rename(unfinished, file)
  return file
}
