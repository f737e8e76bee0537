import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineConfig } from 'vitest/config'
import config from './vitest.config.ts'

/** What a file imports that has more cases for a proof. */
const MORE_CASES = /helpers\/proof\.ts|\bexpressVersions\b/

// Such files, and those that are proofs as a whole.
const include = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => join('test', file))
  .filter((file) => file.endsWith('.proof.test.ts') || MORE_CASES.test(readFileSync(file, 'utf8')))

/** `npm run test:proofs`: the promises with as many cases as they name. See test/helpers/proof.ts. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include,
    exclude: [],
    env: { PAWL_PROOF: 'full' },
    // Each has the machine for itself: some print how long they took.
    fileParallelism: false,
    testTimeout: 900_000,
  },
})
