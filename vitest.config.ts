import { defineConfig } from 'vitest/config'
import { SlowFirst } from './test/helpers/slow-first.ts'
import { sources } from './test/helpers/sources.ts'

export default defineConfig({
  // Examples import `pawl` as everybody does; what tests import of them runs on the sources.
  resolve: {
    alias: sources().map(({ name, file }) => ({
      find: new RegExp(`^${name}$`),
      replacement: file,
    })),
  },
  test: {
    include: ['test/**/*.test.ts'],
    // Run by `npm run test:proofs` alone.
    exclude: ['test/**/*.proof.test.ts'],
    globalSetup: ['test/helpers/postgres.ts'],
    setupFiles: ['test/helpers/setup.ts'],
    // Loading Express, Fastify, Nest and six ORMs once for each file takes longer than the tests.
    isolate: false,
    // Only what hangs takes as long; a busy machine may be slow.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Files share one PostgreSQL, each with a database of its own. Most of their time they wait.
    maxWorkers: 5,
    // A worker lives for many files, and its garbage is young: collecting it less often is a tenth less work.
    execArgv: ['--max-semi-space-size=64'],
    sequence: { sequencer: SlowFirst },
  },
})
