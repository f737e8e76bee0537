import { describe, expect, it } from 'vitest'
import type { AttemptRef } from '../../lib/store/execution-store.ts'
import { type StateChange, StateStore } from '../../lib/store/state-store.ts'
import { StepStore } from '../../lib/store/step-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, lookAt, openStore } from '../helpers/store.ts'

const database = withDatabase()

const changeOf = (attempt: AttemptRef, value: string | null, occurrence = 1): StateChange => ({
  ...attempt,
  object: 'cart',
  key: attempt.id,
  entry: { name: 'state.set items', occurrence },
  position: 1,
  tookMs: 0,
  name: 'items',
  value: value === null ? null : Buffer.from(value),
})

describe('A change of state', () => {
  it('is made once, with its entry, however often it is sent', async () => {
    const side = await openStore(database.url)
    const store = new StateStore(side.db, 'pawl', side.owner)
    const twin = new StateStore(side.db, 'pawl', side.owner)
    for (let round = 0; round < 20; round++) {
      const attempt = await claimNew(side, claimOf())
      const results = await Promise.all([
        store.change(changeOf(attempt, '"a"')),
        twin.change(changeOf(attempt, '"b"')),
      ])
      expect(results.filter(({ recorded }) => recorded)).toHaveLength(1)
      const kept = await store.read({ object: 'cart', key: attempt.id })
      expect(kept.get('items')?.toString()).toBe(results[0]?.recorded ? '"a"' : '"b"')
      const journal = await new StepStore(side.db, 'pawl', side.owner).readJournal(attempt)
      expect(journal).toMatchObject([{ name: 'state.set items', kind: 'state', output: null }])
      await store.change(changeOf(attempt, null, 2))
      expect(await store.read({ object: 'cart', key: attempt.id })).toEqual(new Map())
    }
  })

  it('is refused of an attempt that is not the current one, and leaves nothing', async () => {
    const side = await openStore(database.url, false)
    const other = await openStore(database.url)
    const attempt = await claimNew(side, claimOf())
    const current = await other.store.takeOver(attempt.id, await lookAt(other, attempt.id))
    const stale = new StateStore(side.db, 'pawl', side.owner)
    const result = await stale.change(changeOf(attempt, '"stale"'))
    expect(result).toMatchObject({ recorded: false, current: false })
    expect(await stale.read({ object: 'cart', key: attempt.id })).toEqual(new Map())
    const fresh = new StateStore(other.db, 'pawl', other.owner)
    expect(await fresh.change(changeOf(current!, '"new"'))).toMatchObject({ recorded: true })
  })
})
