import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/postgres.ts'],
    // Only what hangs takes as long; a busy machine may be slow.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Files share one PostgreSQL, each with a database of its own.
    maxWorkers: 3,
  },
})
