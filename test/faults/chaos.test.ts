import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { runChaos } from './chaos/run-chaos.ts'

const ledger = withDatabase({ empty: true })

describe('Three processes under load that are killed, stopped and redeployed, over a PostgreSQL that crashes', () => {
  it('keep every promise: one fault of each kind (chaos.proof.test.ts: many)', async () => {
    const seed = Number(process.env.PAWL_CHAOS_SEED ?? Date.now() % 1_000_000)
    const { wrong, figures, counts } = await runChaos({
      seed,
      ledger,
      chaosMs: 4000,
      pauseMs: [300, 800],
      processTimeoutMs: 1000,
    })
    const expected = Object.fromEntries(Object.keys(wrong).map((check) => [check, []]))
    expect(wrong, figures).toEqual(expected)
    expect(Object.values(counts).every((n) => n > 0)).toBe(true)
  }, 180_000)
})
