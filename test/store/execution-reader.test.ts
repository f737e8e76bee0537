import { describe, expect, it } from 'vitest'
import { ExecutionReader } from '../../lib/store/execution-reader.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimNew, claimOf, completionOf, openStore } from '../helpers/store.ts'

const database = withDatabase()

describe('ExecutionReader', () => {
  it('tells what an execution is, also beside a statement that writes it', async () => {
    const it = await openStore(database.url)
    const reader = new ExecutionReader(it.db, 'pawl')
    const claim = claimOf()
    expect(await reader.describe(claim.id)).toBeNull()
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
      reader.describe(claim.id),
      reader.describe(claim.id),
      it.store.complete(completionOf(attempt, 'x')),
    ])
    expect([first, second]).toEqual([described, described])
    expect(await reader.describe(claim.id)).toEqual(described)
  })

  it('does not know what has expired, unless it runs', async () => {
    const it = await openStore(database.url)
    const reader = new ExecutionReader(it.db, 'pawl')
    const claim = claimOf(undefined, { retentionMs: 0 })
    const attempt = await claimNew(it, claim)
    expect(await reader.describe(claim.id)).toMatchObject({ id: claim.id })
    await it.store.complete({ ...completionOf(attempt, 'x'), retentionMs: 0 })
    expect(await reader.describe(claim.id)).toBeNull()
  })

  it('describes the state and the outcome on request, also after it has expired', async () => {
    const it = await openStore(database.url)
    const reader = new ExecutionReader(it.db, 'pawl')
    const claim = claimOf()
    expect(await reader.describeInFull(claim.id)).toBeNull()
    const attempt = await claimNew(it, claim)
    const running = {
      status: 'running',
      attempt: 1,
      version: null,
      cancelling: false,
      outcome: null,
    }
    expect(await reader.describeInFull(claim.id)).toMatchObject({
      ...(await reader.describe(claim.id)),
      ...running,
      lastError: null,
      completedAt: null,
    })
    const completion = { ...completionOf(attempt, 'x'), retentionMs: 0 }
    await it.store.complete(completion)
    expect(await reader.describeInFull(claim.id)).toMatchObject({
      status: 'done',
      outcome: completion.outcome,
      completedAt: expect.any(Date),
    })
  })

  it('an error of the store is one of Pawl', async () => {
    const { db } = await openStore(database.url)
    await expect(new ExecutionReader(db, 'nowhere').describe(claimOf().id)).rejects.toMatchObject({
      code: 'store-refused',
    })
  })
})
