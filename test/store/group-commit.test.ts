import { describe, expect, it } from 'vitest'
import { PawlError } from '../../lib/errors/index.ts'
import type { StatementError } from '../../lib/store/database/statement-error.ts'
import { GroupCommit } from '../../lib/store/group-commit.ts'
import { withDatabase } from '../helpers/database.ts'
import { claimOf, openStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

/** Sends by hand: each batch waits until the test lets it go. */
function byHand() {
  const batches: { operations: number[]; succeed(): void; fail(error: unknown): void }[] = []
  const send = (operations: number[]) =>
    new Promise<string[]>((resolve, reject) => {
      batches.push({
        operations,
        succeed: () => resolve(operations.map((n) => `result ${n}`)),
        fail: reject,
      })
    })
  return { batches, send }
}

const turn = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
const failed = (code: string) => Object.assign(new Error(`SQLSTATE ${code}`), { code })
const refusal = failed('22001')

describe('group commit', () => {
  it('sends at once when idle', async () => {
    const { batches, send } = byHand()
    const result = new GroupCommit(send, Number.POSITIVE_INFINITY).run(1)
    await turn()
    expect(batches).toHaveLength(1)
    batches[0]?.succeed()
    expect(await result).toBe('result 1')
  })

  it('sends what arrived together as one statement', async () => {
    const { batches, send } = byHand()
    const group = new GroupCommit(send, Number.POSITIVE_INFINITY)
    for (const n of [1, 2, 3]) group.run(n)
    await turn()
    expect(batches.map((batch) => batch.operations)).toEqual([[1, 2, 3]])
  })

  it('collects while a statement is in flight, and sends all of it as the next', async () => {
    const { batches, send } = byHand()
    const group = new GroupCommit(send, Number.POSITIVE_INFINITY)
    group.run(1)
    await turn()
    for (const n of [2, 3, 4]) {
      group.run(n)
      await turn()
    }
    expect(batches).toHaveLength(1)
    batches[0]?.succeed()
    await turn()
    expect(batches.map((batch) => batch.operations)).toEqual([[1], [2, 3, 4]])
  })

  it('gives each operation its own result', async () => {
    const group = new GroupCommit(
      async (operations: number[]) => operations.map((n) => n * 10),
      10_000,
    )
    const numbers = Array.from({ length: 100 }, (_, n) => n)
    expect(await Promise.all(numbers.map((n) => group.run(n)))).toEqual(numbers.map((n) => n * 10))
  })

  it('puts no more than the maximum into one statement', async () => {
    const sizes: number[] = []
    const group = new GroupCommit(
      async (operations: number[]) => {
        sizes.push(operations.length)
        return operations
      },
      10_000,
      { maxOperations: 10 },
    )
    await Promise.all(Array.from({ length: 25 }, (_, n) => group.run(n)))
    expect(sizes).toEqual([10, 10, 5])
  })

  it('puts no more bytes than the maximum into one statement, and one that is larger goes alone', async () => {
    const batches: number[][] = []
    const group = new GroupCommit(
      async (operations: number[]) => {
        batches.push(operations)
        return operations
      },
      10_000,
      { maxBytes: 10, sizeOf: (n: number) => n },
    )
    await Promise.all([4, 4, 4, 50, 1, 9, 1].map((n) => group.run(n)))
    expect(batches).toEqual([[4, 4], [4], [50], [1, 9], [1]])
  })

  it('rejects all operations of a statement whose connection broke, and goes on', async () => {
    const { batches, send } = byHand()
    const group = new GroupCommit(send, Number.POSITIVE_INFINITY)
    const results = Promise.allSettled([1, 2, 3].map((n) => group.run(n)))
    await turn()
    const broken = new Error('Connection terminated unexpectedly')
    batches[0]?.fail(broken)
    expect(await results).toEqual(Array(3).fill({ status: 'rejected', reason: broken }))
    expect(batches).toHaveLength(1)
    const next = group.run(4)
    await turn()
    batches[1]?.succeed()
    expect(await next).toBe('result 4')
  })

  it('halves a batch that was refused until the refused one is alone', async () => {
    const sizes: number[] = []
    const group = new GroupCommit(async (operations: number[]) => {
      sizes.push(operations.length)
      if (operations.includes(5)) throw refusal
      return operations
    }, 10_000)
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, n) => group.run(n)))
    expect(results.map((result) => result.status === 'fulfilled')).toEqual(
      results.map((_, n) => n !== 5),
    )
    expect(sizes).toEqual([8, 4, 4, 2, 1, 1, 2])
  })

  it('takes a batch that waits for a lock apart; what waits alone goes beside the others, until its time is up', async () => {
    const sent: [number[], number | null][] = []
    let locked = true
    const group = new GroupCommit(async (operations: number[], lockMs: number | null) => {
      sent.push([operations, lockMs])
      if (locked && operations.includes(5)) throw failed('55P03')
      return operations
    }, 10_000)
    const five = group.run(5)
    const others = [0, 1, 2, 3, 4, 6, 7].map((n) => group.run(n))
    expect(await Promise.all(others)).toEqual([0, 1, 2, 3, 4, 6, 7])
    expect(await group.run(8)).toBe(8)
    const alone = sent.filter(([operations]) => operations.length === 1 && operations[0] === 5)
    expect(sent[0]).toEqual([[5, 0, 1, 2, 3, 4, 6, 7], 100])
    expect(alone[0]?.[1]).toBe(100)
    expect(alone.at(-1)?.[1]).toBeGreaterThan(5000)
    locked = false
    expect(await five).toBe(5)
  })

  it('does not send again what its caller has given up, and says when it has ended', async () => {
    let sent = 0
    const group = new GroupCommit(async () => {
      sent++
      await new Promise((resolve) => setTimeout(resolve, 20))
      throw failed('55P03')
    }, 200)
    const error: unknown = await group.run(1).catch((error) => error)
    expect(error).toMatchObject({ name: 'StatementError', kind: 'timeout' })
    await (error as StatementError).ended
    const before = sent
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(sent).toBe(before)
  })

  it('fails what has waited too long, and never sends it', async () => {
    const { batches, send } = byHand()
    const group = new GroupCommit(send, 100)
    const first = group.run(1)
    const second = turn().then(() => group.run(2))
    await expect(first).rejects.toMatchObject({ name: 'StatementError', kind: 'timeout' })
    const refused = await second.catch((error) => error)
    expect(String(refused)).toContain('earlier statements have had no reply for 100 ms')
    expect(await refused.ended).toBeUndefined() // At once: it will never be sent.
    batches[0]?.succeed()
    const third = group.run(3)
    await waitFor('the next', () => batches.length === 2)
    expect(batches[1]?.operations).toEqual([3])
    batches[1]?.succeed()
    expect(await third).toBe('result 3')
  })

  it('tells of what was sent, and has no reply in time, when it has ended', async () => {
    const { batches, send } = byHand()
    const error = await new GroupCommit(send, 50).run(1).catch((error) => error)
    let ended = false
    error.ended.then(() => {
      ended = true
    })
    await turn()
    expect(ended).toBe(false)
    batches[0]?.succeed()
    await waitFor('the end', () => ended)
  })

  it('survives a send that throws instead of rejecting', async () => {
    let calls = 0
    const group = new GroupCommit((operations: number[]) => {
      if (calls++ === 0) throw new TypeError('a bug')
      return Promise.resolve(operations)
    }, 10_000)
    await expect(group.run(1)).rejects.toThrow('a bug')
    expect(await group.run(2)).toBe(2)
  })
})

describe('group commit against a real PostgreSQL', () => {
  const database = withDatabase()

  it('one bad operation never fails its neighbours: a batch of 64 of which one is refused', async () => {
    await database.pool.query(
      `alter table pawl.executions add constraint no_bad_key check (key not like 'bad%')`,
    )
    const one = await openStore(database.url)
    const claims = Array.from({ length: 64 }, (_, n) => claimOf(n === 37 ? 'bad' : `good ${n}`))
    const results = await Promise.allSettled(claims.map((claim) => one.store.claim(claim)))
    results.forEach((result, n) => {
      if (n === 37) {
        expect(result).toMatchObject({ status: 'rejected', reason: { code: 'store-refused' } })
        expect((result as PromiseRejectedResult).reason).toBeInstanceOf(PawlError)
      } else {
        expect(result).toMatchObject({ value: { claimed: { id: claims[n]?.id, attempt: 1 } } })
      }
    })
    const { rows } = await database.pool.query('select count(*)::int as n from pawl.executions')
    expect(rows[0].n).toBe(63)
  })

  it('a key that PostgreSQL cannot store (NUL) fails alone', async () => {
    const one = await openStore(database.url)
    const claims = ['a', 'b\0', 'c'].map((key) => claimOf(key))
    const results = await Promise.allSettled(claims.map((claim) => one.store.claim(claim)))
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })
})
