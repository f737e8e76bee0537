import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = new URL('../../', import.meta.url)

/** The source of everything that the package exports: `pawl/express` is lib/adapters/express.ts. */
export function sources(): { name: string; file: string }[] {
  const { exports } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  return Object.entries<{ default?: string }>(exports).flatMap(([subpath, target]) => {
    const built = target.default
    if (!built) return []
    const source = built.replace('./dist/', './lib/').replace(/\.js$/, '.ts')
    return [{ name: `pawl${subpath.slice(1)}`, file: fileURLToPath(new URL(source, root)) }]
  })
}
