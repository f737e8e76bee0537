import { afterEach, describe, expect, it, vi } from 'vitest'
import { retryConflicts } from '../../../lib/store/database/retry-conflicts.ts'
import { withDatabase } from '../../helpers/database.ts'

const database = withDatabase()
afterEach(() => void vi.restoreAllMocks())

/** Fails with the SQLSTATE as often as said, and notes when it was called. */
function failing(times: number, state: string) {
  const calls: number[] = []
  const work = async () => {
    calls.push(performance.now())
    if (calls.length > times) return calls.length
    return database.pool.query(
      `do $$ begin raise exception 'no' using errcode = '${state}'; end $$`,
    )
  }
  return { calls, work }
}

describe('a conflict under serializable', () => {
  it.each(['40001', '40P01'])('(%s) is retried after pauses that double', async (state) => {
    // The longest pauses: with full jitter each is anything from zero to this.
    vi.spyOn(Math, 'random').mockReturnValue(1)
    const { calls, work } = failing(4, state)
    expect(await retryConflicts(work)).toBe(5)
    const pauses = calls.slice(1).map((at, i) => at - calls[i]!)
    // A timer may fire a millisecond early.
    for (const [i, shortest] of [10, 20, 40, 80].entries())
      expect(pauses[i]).toBeGreaterThan(shortest - 2)
  })

  it('is retried four times at most, and other errors not at all', async () => {
    const conflict = failing(9, '40001')
    await expect(retryConflicts(conflict.work)).rejects.toMatchObject({ code: '40001' })
    expect(conflict.calls).toHaveLength(5)
    const other = failing(9, '23505')
    await expect(retryConflicts(other.work)).rejects.toMatchObject({ code: '23505' })
    expect(other.calls).toHaveLength(1)
  })
})
