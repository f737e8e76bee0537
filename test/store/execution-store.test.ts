import { afterEach, describe, expect, it } from 'vitest'
import type { ClaimResult } from '../../lib/store/execution-store.ts'
import { withDatabase } from '../helpers/database.ts'
import { cases } from '../helpers/proof.ts'
import {
  claimNew,
  claimOf,
  completionOf,
  lookAt,
  openStore,
  shuffled,
  type TestStore,
} from '../helpers/store.ts'

const database = withDatabase()
const pair = () => Promise.all([openStore(database.url), openStore(database.url)])
const many = (n: number) => Array.from({ length: n }, () => claimOf())
const row = async (id: string) => {
  const { rows } = await database.pool.query('select * from pawl.executions where id = $1', [id])
  return rows[0]
}

/** Calls in bursts of random size, as requests arrive. */
async function inBursts<T, R>(items: readonly T[], call: (item: T) => Promise<R>): Promise<R[]> {
  const results: Promise<R>[] = []
  const rest = [...items]
  while (rest.length > 0) {
    for (const item of rest.splice(0, 1 + Math.floor(Math.random() * 40))) results.push(call(item))
    await new Promise((resolve) => setImmediate(resolve))
  }
  return Promise.all(results)
}

afterEach(async () => {
  await database.pool.query('truncate pawl.executions, pawl.processes')
})

describe('claim', () => {
  it('two stores that claim 500 ids in different orders: each is claimed once, and nobody waits for ever', async () => {
    for (let round = 0; round < cases(1, { proof: 4 }); round++) {
      const [one, two] = await pair()
      const claims = many(500)
      const all = await Promise.all(
        [one, two].map((side) =>
          inBursts(
            shuffled(claims),
            async (claim): Promise<[string, ClaimResult]> => [
              claim.id,
              await side.store.claim(claim),
            ],
          ),
        ),
      )
      const winners = new Map<string, number>()
      for (const [id, result] of all.flat()) {
        if ('claimed' in result) winners.set(id, (winners.get(id) ?? 0) + 1)
        // The loser sees who won, even if its snapshot was older.
        else expect(result.found).toMatchObject({ status: 'running', ownerAlive: true })
      }
      expect([...winners.values()]).toEqual(Array(500).fill(1))
    }
  })

  it('returns the existing execution: owner, attempt, fingerprint, incarnation', async () => {
    const [one, two] = await pair()
    const claim = claimOf()
    const attempt = await claimNew(one, claim)
    expect(await two.store.claim(claimOf(claim.key, { fingerprint: Buffer.from('x') }))).toEqual({
      found: {
        status: 'running',
        fingerprint: claim.fingerprint,
        owner: one.owner,
        ownerAlive: true,
        attempt: 1,
        incarnation: attempt.incarnation,
        expired: false,
        hasSteps: false,
        outcome: null,
      },
    })
  })

  it('returns each claim its own row when some are new and some are not', async () => {
    const [one, two] = await pair()
    const claims = many(64)
    const taken = claims.filter((_, n) => n % 3 === 0)
    await Promise.all(taken.map((claim) => claimNew(one, claim)))
    const results = await Promise.all(claims.map((claim) => two.store.claim(claim)))
    results.forEach((result, n) => {
      if (n % 3 === 0) expect(result).toMatchObject({ found: { owner: one.owner } })
      else expect(result).toMatchObject({ claimed: { id: claims[n]?.id } })
    })
  })
})

describe('take over', () => {
  it('has one winner for each execution', async () => {
    const dead = await openStore(database.url, false)
    const [one, two] = await pair()
    const claims = many(200)
    await Promise.all(claims.map((claim) => claimNew(dead, claim)))
    const race = async (side: TestStore) =>
      Promise.all(
        shuffled(claims).map(async ({ id }) => {
          const taken = await side.store.takeOver(id, await lookAt(side, id))
          return taken ? [id] : []
        }),
      )
    const winners = (await Promise.all([race(one), race(two)])).flat(2)
    expect(winners.sort()).toEqual(claims.map((claim) => claim.id).sort())
    const { rows } = await database.pool.query('select distinct attempt from pawl.executions')
    expect(rows).toEqual([{ attempt: 2 }])
  })

  it('leaves an execution alone whose owner came back to life meanwhile', async () => {
    const [one, two] = await pair()
    const claim = claimOf()
    await claimNew(one, claim)
    await one.live(0)
    const seen = await lookAt(two, claim.id)
    expect(seen.ownerAlive).toBe(false)
    await one.live(60_000)
    expect(await two.store.takeOver(claim.id, seen)).toBeNull()
  })

  it('leaves an execution alone that another has taken and given back since it was seen', async () => {
    const dead = await openStore(database.url, false)
    const [one, two] = await pair()
    const claim = claimOf()
    await claimNew(dead, claim)
    const seen = await lookAt(one, claim.id)
    const taken = await two.store.takeOver(claim.id, await lookAt(two, claim.id))
    expect(taken).toMatchObject({ attempt: 2 })
    await two.store.release(taken as NonNullable<typeof taken>, 'unknown')
    expect(await one.store.takeOver(claim.id, seen)).toBeNull()
    expect(await row(claim.id)).toMatchObject({ status: 'unknown', attempt: 2 })
  })

  it('leaves an execution alone that is done', async () => {
    const dead = await openStore(database.url, false)
    const [one] = await pair()
    const claim = claimOf()
    const attempt = await claimNew(dead, claim)
    const seen = await lookAt(one, claim.id)
    await dead.store.complete(completionOf(attempt, 'late'))
    expect(await one.store.takeOver(claim.id, seen)).toBeNull()
  })

  it('does not forget that others wait', async () => {
    const dead = await openStore(database.url, false)
    const [one] = await pair()
    const claim = claimOf()
    await claimNew(dead, claim)
    await one.store.markAwaited(claim.id)
    await one.store.takeOver(claim.id, await lookAt(one, claim.id))
    expect((await row(claim.id)).awaited).toBe(true)
  })
})

describe('complete', () => {
  it('raced by two attempts: one outcome, and the other adopts it', async () => {
    for (let round = 0; round < cases(1, { proof: 4 }); round++) {
      const zombie = await openStore(database.url, false)
      const heir = await openStore(database.url)
      const claims = many(300)
      const attempts = await Promise.all(
        claims.map(async (claim) => {
          const first = await claimNew(zombie, claim)
          const second = await heir.store.takeOver(claim.id, await lookAt(heir, claim.id))
          return { first, second: second as NonNullable<typeof second> }
        }),
      )
      const [early, late] = await Promise.all([
        inBursts(shuffled(attempts), async ({ first }) => ({
          id: first.id,
          result: await zombie.store.complete(completionOf(first, 'zombie')),
        })),
        inBursts(shuffled(attempts), async ({ second }) => ({
          id: second.id,
          result: await heir.store.complete(completionOf(second, 'heir')),
        })),
      ])
      const byId = new Map(late.map(({ id, result }) => [id, result]))
      for (const { id, result } of early) {
        const other = byId.get(id)
        const [winner, loser] = result.kind === 'stored' ? ['zombie', other] : ['heir', result]
        expect([result.kind, other?.kind].sort()).toEqual(['found', 'stored'])
        expect(loser).toMatchObject({ found: { outcome: { body: Buffer.from(winner) } } })
      }
    }
  })

  it('a failure of a stale attempt changes nothing', async () => {
    const zombie = await openStore(database.url, false)
    const heir = await openStore(database.url)
    const claim = claimOf()
    const first = await claimNew(zombie, claim)
    await heir.store.takeOver(claim.id, await lookAt(heir, claim.id))
    const result = await zombie.store.complete(completionOf(first, 'oops', true))
    expect(result).toMatchObject({ kind: 'found', found: { status: 'running', owner: heir.owner } })
  })

  it('a failure of an attempt that was released changes nothing', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await one.store.release(attempt, 'unknown')
    expect(await one.store.complete(completionOf(attempt, 'oops', true))).toMatchObject({
      found: { status: 'unknown', outcome: null },
    })
  })

  it('a success of an attempt that was released counts', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await one.store.release(attempt, 'unknown')
    expect(await one.store.complete(completionOf(attempt, 'late'))).toEqual({ kind: 'stored' })
  })

  it('sent twice, since its reply was lost, finds its own outcome', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await one.store.complete(completionOf(attempt, 'first'))
    expect(await one.store.complete(completionOf(attempt, 'first'))).toMatchObject({
      found: { outcome: { status: 200, body: Buffer.from('first') } },
    })
  })

  it('an attempt of an execution that was deleted meanwhile finds nothing', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await database.pool.query('delete from pawl.executions')
    expect(await one.store.complete(completionOf(attempt, 'x'))).toEqual({
      kind: 'found',
      found: null,
    })
  })

  it('keeps apart an empty body and one that was not kept', async () => {
    const [one] = await pair()
    const [empty, none] = await Promise.all([claimNew(one, claimOf()), claimNew(one, claimOf())])
    const outcome = { status: 204, headers: Buffer.from('[]') }
    await Promise.all([
      one.store.complete({
        ...completionOf(empty, ''),
        outcome: { ...outcome, body: Buffer.alloc(0) },
      }),
      one.store.complete({ ...completionOf(none, ''), outcome: { ...outcome, body: null } }),
    ])
    expect((await lookAt(one, empty.id)).outcome?.body).toEqual(Buffer.alloc(0))
    expect((await lookAt(one, none.id)).outcome?.body).toBeNull()
  })
})

describe('restart of an expired execution', () => {
  const expired = { retentionMs: 0 }

  it('has one winner', async () => {
    const dead = await openStore(database.url, false)
    const [one, two] = await pair()
    const claims = Array.from({ length: 50 }, () => claimOf(undefined, expired))
    await Promise.all(claims.map((claim) => claimNew(dead, claim)))
    const race = (side: TestStore) =>
      Promise.all(
        claims.map(async (claim) => side.store.restartExpired(claim, await lookAt(side, claim.id))),
      )
    const [a, b] = await Promise.all([race(one), race(two)])
    // A winner of retention 0 expires again at once: then the second may restart it, one life on.
    a.forEach((first, n) => {
      const lives = [first, b[n]].filter((attempt) => attempt)
      expect(lives.length).toBeGreaterThan(0)
      expect(new Set(lives.map((attempt) => attempt?.attempt)).size).toBe(lives.length)
    })
  })

  it('begins anew: nothing of the old incarnation is left, and the new request is what counts', async () => {
    const [one] = await pair()
    const claim = claimOf(undefined, expired)
    const attempt = await claimNew(one, claim)
    await one.store.complete({ ...completionOf(attempt, 'old'), retentionMs: 0 })
    const next = { ...claim, name: 'POST /other', fingerprint: Buffer.from('n'), retentionMs: 9e6 }
    const seen = await lookAt(one, claim.id)
    expect(seen.expired).toBe(true)
    expect(await one.store.restartExpired(next, seen)).toMatchObject({ attempt: 2 })
    expect(await row(claim.id)).toMatchObject({
      status: 'running',
      name: 'POST /other',
      fingerprint: Buffer.from('n'),
      response_status: null,
      response_headers: null,
      response_body: null,
      completed_at: null,
    })
    expect((await lookAt(one, claim.id)).expired).toBe(false)
  })

  it('a completion, failure or release of the old incarnation changes nothing in the new one', async () => {
    const dead = await openStore(database.url, false)
    const [one] = await pair()
    const claim = claimOf(undefined, expired)
    const old = await claimNew(dead, claim)
    const fresh = await one.store.restartExpired(
      { ...claim, retentionMs: 60_000 },
      await lookAt(one, claim.id),
    )
    const before = await row(claim.id)
    // Whatever attempt number the old life pretends to have.
    for (const attempt of [1, 2]) {
      const late = { ...old, attempt }
      for (const failure of [true, false]) {
        const result = await dead.store.complete(completionOf(late, 'late', failure))
        expect(result).toEqual({ kind: 'found', found: null })
      }
      await dead.store.release(late, 'released')
      await one.store.release(late, 'released')
    }
    expect(await row(claim.id)).toEqual(before)
    expect(fresh?.incarnation).not.toBe(old.incarnation)
  })

  it('leaves an execution alone that a live process is running', async () => {
    const [one, two] = await pair()
    const claim = claimOf(undefined, expired)
    await claimNew(one, claim)
    const seen = await lookAt(two, claim.id)
    expect(seen.expired).toBe(false)
    expect(await two.store.restartExpired(claim, seen)).toBeNull()
  })
})

describe('release', () => {
  it.each(['released', 'unknown'] as const)('%s: only the current attempt can', async (status) => {
    const zombie = await openStore(database.url, false)
    const heir = await openStore(database.url)
    const claim = claimOf()
    const first = await claimNew(zombie, claim)
    const second = await heir.store.takeOver(claim.id, await lookAt(heir, claim.id))
    await zombie.store.release(first, status)
    expect((await row(claim.id)).status).toBe('running')
    // The right number in the wrong process.
    await zombie.store.release({ ...first, attempt: 2 }, status)
    expect((await row(claim.id)).status).toBe('running')
    await heir.store.release(second as NonNullable<typeof second>, status)
    expect(await row(claim.id)).toMatchObject({ status, owner: null, attempt: 2 })
  })

  it('does not undo an outcome', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await one.store.complete(completionOf(attempt, 'kept'))
    await one.store.release(attempt, 'released')
    expect((await lookAt(one, attempt.id)).outcome?.body?.toString()).toBe('kept')
  })

  it('undoClaim deletes a claim of this process only, and no later attempt', async () => {
    const [one, two] = await pair()
    const claim = claimOf()
    await claimNew(one, claim)
    await two.store.undoClaim(claim.id, 1)
    await one.store.undoClaim(claim.id, 2)
    expect(await row(claim.id)).toBeDefined()
    await one.store.undoClaim(claim.id, 1)
    expect(await row(claim.id)).toBeUndefined()
  })

  it('undoClaim leaves an outcome alone', async () => {
    const [one] = await pair()
    const attempt = await claimNew(one, claimOf())
    await one.store.complete(completionOf(attempt, 'kept'))
    await one.store.undoClaim(attempt.id, 1)
    expect(await row(attempt.id)).toBeDefined()
  })

  it('a person can free what is unknown or interrupted, and nothing else', async () => {
    const dead = await openStore(database.url, false)
    const [one] = await pair()
    const [running, done, unknown] = await Promise.all(many(3).map((claim) => claimNew(one, claim)))
    const interrupted = await claimNew(dead, claimOf())
    await one.store.complete(completionOf(done!, 'kept'))
    await one.store.release(unknown!, 'unknown')
    expect(await one.store.releaseStuck(running!.id)).toBe(false)
    expect(await one.store.releaseStuck(done!.id)).toBe(false)
    expect(await one.store.releaseStuck(claimOf().id)).toBe(false)
    expect(await one.store.releaseStuck(unknown!.id)).toBe(true)
    expect(await one.store.releaseStuck(interrupted.id)).toBe(true)
    for (const { id } of [unknown!, interrupted]) {
      expect(await row(id)).toMatchObject({ status: 'released', owner: null })
    }
  })
})
