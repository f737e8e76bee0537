/** Run by vitest before each test file. */
import { afterAll, afterEach, expect } from 'vitest'
import { cleanUpFile, cleanUpTest } from './cleanup.ts'

// Vitest compares them by the names of their properties, which for a large body takes a second.
expect.addEqualityTesters([
  (a, b) => (Buffer.isBuffer(a) && Buffer.isBuffer(b) ? a.equals(b) : undefined),
])

afterEach(cleanUpTest)
afterAll(cleanUpFile)
