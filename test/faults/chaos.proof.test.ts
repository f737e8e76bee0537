import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { runChaos } from './chaos/run-chaos.ts'

const ledger = withDatabase({ empty: true })

/** `PAWL_CHAOS_SEED` repeats the draws of a run, and `PAWL_CHAOS_SECONDS` makes it longer. */
const seed = Number(process.env.PAWL_CHAOS_SEED ?? Date.now() % 1_000_000)
const seconds = Number(process.env.PAWL_CHAOS_SECONDS ?? 90)

describe('Three processes under load that are killed, stopped and redeployed, over a PostgreSQL that crashes', () => {
  it(
    `keep every promise for ${seconds} s`,
    async () => {
      const { wrong, figures, counts, monitor } = await runChaos({
        seed,
        ledger,
        chaosMs: seconds * 1000,
        pauseMs: [500, 2500],
        processTimeoutMs: 2000,
      })
      console.log(figures)
      const expected = Object.fromEntries(Object.keys(wrong).map((check) => [check, []]))
      expect(wrong, figures).toEqual(expected)
      expect(Object.values(counts).every((n) => n > 0)).toBe(true)
      expect([monitor.snapshots > 0, monitor.borrowed > 0]).toEqual([true, true])
    },
    seconds * 1000 + 400_000,
  )
})
