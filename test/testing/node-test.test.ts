import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { bundle } from '../helpers/bundle.ts'
import { withDatabase } from '../helpers/database.ts'
import { proofOnly } from '../helpers/proof.ts'

const { url } = withDatabase()

/** Runs test/apps/node-test.ts as an app's own `npm test` would. */
async function nodeTest(env: Record<string, string>): Promise<{ code: unknown; output: string }> {
  const file = fileURLToPath(new URL('../apps/node-test.ts', import.meta.url))
  const args = ['--test', '--test-reporter', 'tap', await bundle(file)]
  // Vitest marks its own processes as tests, in which node:test would not start any.
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      args,
      { env: { ...inherited, DATABASE_URL: url, ...env } },
      (error, stdout, stderr) => resolve({ code: error?.code ?? 0, output: stdout + stderr }),
    )
  })
}

describe('crashTest() under node:test', () => {
  proofOnly('passes, prints nothing, and lets the process end', async () => {
    const { code, output } = await nodeTest({})
    expect(output).toContain('ok 1 - placing an order survives every crash')
    expect(output).not.toContain('crash point')
    expect(code).toBe(0)
  })

  it('fails with the crash point and what differs', async () => {
    const { code, output } = await nodeTest({ CHARGE_TWICE: '1' })
    expect(output).toContain('not ok 1 - placing an order survives every crash')
    expect(output).toContain('Crash before step "charge card" is recorded:')
    expect(output).toContain('check: expected 1, got 2')
    expect(code).toBe(1)
  }, 60_000)
})
