import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const { exports } = JSON.parse(readFileSync(here('package.json'), 'utf8'))

/** Examples import `pawl` as everybody does; what tests import of them runs on the sources. */
const sources = Object.entries<{ default?: string }>(exports).flatMap(([subpath, target]) => {
  const built = target.default
  if (!built) return []
  const source = built.replace('./dist/', './lib/').replace(/\.js$/, '.ts')
  return [{ find: new RegExp(`^pawl${subpath.slice(1)}$`), replacement: here(source) }]
})

export default defineConfig({
  resolve: { alias: sources },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/postgres.ts'],
    setupFiles: ['test/helpers/setup.ts'],
    // Loading Express, Fastify, Nest and six ORMs once for each file takes longer than the tests.
    isolate: false,
    // Only what hangs takes as long; a busy machine may be slow.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Files share one PostgreSQL, each with a database of its own.
    maxWorkers: 3,
  },
})
