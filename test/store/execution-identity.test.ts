import { expect, it, describe as suite } from 'vitest'
import { describe } from '../../lib/store/execution-identity.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, openStore } from '../helpers/store.ts'

const database = withDatabase()

suite('describe', () => {
  it('tells what an execution is, also beside a statement that writes it', async () => {
    const it = await openStore(database.url)
    const claim = claimOf()
    expect(await describe(it.db, 'pawl', claim.id)).toBeNull()
    const attempt = await claimNew(it, claim)
    const described = {
      id: claim.id,
      incarnation: attempt.incarnation,
      kind: 'request',
      name: claim.name,
      scope: claim.scope,
      key: claim.key,
      createdAt: new Date(Number(attempt.incarnation) / 1000),
    }
    const [first, second] = await Promise.all([
      describe(it.db, 'pawl', claim.id),
      describe(it.db, 'pawl', claim.id),
      it.store.complete(completionOf(attempt, 'x')),
    ])
    expect([first, second]).toEqual([described, described])
    expect(await describe(it.db, 'pawl', claim.id)).toEqual(described)
  })

  it('does not know what has expired, unless it runs', async () => {
    const it = await openStore(database.url)
    const claim = claimOf(undefined, { retentionMs: 0 })
    const attempt = await claimNew(it, claim)
    expect(await describe(it.db, 'pawl', claim.id)).toMatchObject({ id: claim.id })
    await it.store.complete({ ...completionOf(attempt, 'x'), retentionMs: 0 })
    expect(await describe(it.db, 'pawl', claim.id)).toBeNull()
  })

  it('an error of the store is one of Pawl', async () => {
    const { db } = await openStore(database.url)
    await expect(describe(db, 'nowhere', claimOf().id)).rejects.toMatchObject({
      code: 'store-refused',
    })
  })
})
