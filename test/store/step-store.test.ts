import { describe, expect, it } from 'vitest'
import type { AttemptRef } from '../../lib/store/execution-store.ts'
import { type StepRecord, StepStore } from '../../lib/store/step-store.ts'
import { withDatabase } from '../helpers/database.ts'
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

async function open() {
  const test = await openStore(database.url)
  return { ...test, steps: new StepStore(test.db, 'pawl', test.owner) }
}

/** An execution that `first` claimed and `second` has taken over. */
async function takenOver(first: TestStore, second: TestStore) {
  const old = await claimNew(first, claimOf())
  await first.live(0)
  const current = await second.store.takeOver(old.id, await lookAt(second, old.id))
  if (!current) throw new Error('not taken over')
  return { old, current }
}

let position = 0
function stepOf(ref: AttemptRef, name: string, other: Partial<StepRecord> = {}): StepRecord {
  return {
    ...ref,
    name,
    occurrence: 1,
    kind: 'step',
    position: ++position,
    output: Buffer.from(`"${name}"`),
    error: null,
    tookMs: 5,
    completed: true,
    onlyIfCurrent: false,
    ...other,
  }
}
const failure = { output: null, error: Buffer.from('"no"'), onlyIfCurrent: true }
const intent = { output: null, completed: false, onlyIfCurrent: true }
const giveUp = { kind: 'giving-up', onlyIfCurrent: true } as const

describe('record', () => {
  it('of a batch of which PostgreSQL refuses one, the others are recorded', async () => {
    const { steps, ...test } = await open()
    const ref = await claimNew(test, claimOf())
    const names = Array.from({ length: 40 }, (_, i) => (i === 17 ? 'NUL \0' : `step ${i}`))
    const results = await Promise.allSettled(names.map((name) => steps.record(stepOf(ref, name))))
    expect(results.flatMap(({ status }, i) => (status === 'rejected' ? i : []))).toEqual([17])
    expect(results[17]).toMatchObject({ reason: { code: 'store-refused' } })
    expect(await steps.readJournal(ref)).toHaveLength(39)
  })

  it('of one step twice in one statement, one wins', async () => {
    const { steps, ...test } = await open()
    const ref = await claimNew(test, claimOf())
    const results = await Promise.all(
      [1, 2, 3].map((n) => steps.record(stepOf(ref, 'a', { output: Buffer.from(`${n}`) }))),
    )
    expect(results.filter(({ recorded }) => recorded)).toHaveLength(1)
    const winner = results.findIndex(({ recorded }) => recorded) + 1
    expect((await steps.readJournal(ref)).map(({ output }) => `${output}`)).toEqual([`${winner}`])
  })

  it('of many steps by two processes at once, in any order, each is recorded once', async () => {
    const [one, two] = [await open(), await open()]
    const { old, current } = await takenOver(one, two)
    const names = Array.from({ length: 300 }, (_, i) => `step ${i}`)
    const by = (process: typeof one, ref: AttemptRef) =>
      shuffled(names).map(async (name) => {
        const step = stepOf(ref, name, { output: Buffer.from(`${ref.attempt}`) })
        return [name, await process.steps.record(step)] as const
      })
    const [first, second] = await Promise.all([
      Promise.all(by(one, old)),
      Promise.all(by(two, current)),
    ])
    const journal = await two.steps.readJournal(current)
    expect(journal).toHaveLength(300)
    for (const [results, attempt] of [
      [first, 1],
      [second, 2],
    ] as const) {
      for (const [name, { recorded, current }] of results) {
        const entry = journal.find((entry) => entry.name === name)
        expect(recorded).toBe(entry?.attempt === attempt)
        expect(current).toBe(attempt === 2)
      }
    }
  })

  it('failures and intents only of the current attempt', async () => {
    const [one, two] = [await open(), await open()]
    const { old, current } = await takenOver(one, two)
    for (const what of [failure, intent]) {
      expect(await one.steps.record(stepOf(old, 'a', what))).toMatchObject({
        recorded: false,
        current: false,
      })
    }
    expect(await two.steps.record(stepOf(current, 'a', intent))).toMatchObject({ recorded: true })
    expect(await two.steps.record(stepOf(current, 'a', failure))).toMatchObject({ recorded: true })
    expect(await one.steps.record(stepOf(old, 'a'))).toMatchObject({
      recorded: false,
      current: false,
    })
    expect(await two.steps.readJournal(current)).toMatchObject([
      { attempt: 2, completed: true, output: null },
    ])
  })

  it('a failure that races with a takeover is recorded before it, or not at all', async () => {
    const [one, two] = [await open(), await open()]
    for (let round = 0; round < 20; round++) {
      await one.live(60_000)
      const old = await claimNew(one, claimOf())
      const seen = await lookAt(two, old.id)
      await one.live(0)
      const [recorded, taken] = await Promise.all([
        one.steps.record(stepOf(old, 'a', failure)),
        two.store.takeOver(old.id, seen),
      ])
      expect(taken).not.toBeNull()
      const journal = await two.steps.readJournal(taken as AttemptRef)
      expect(journal).toHaveLength(recorded.recorded ? 1 : 0)
    }
  })

  it('nothing into an execution that is done, or another incarnation', async () => {
    const { steps, ...test } = await open()
    const done = await claimNew(test, claimOf())
    await test.store.complete(completionOf(done, 'done'))
    const other = { ...(await claimNew(test, claimOf())), incarnation: '1' }
    for (const ref of [done, other]) {
      for (const what of [{}, failure, intent, giveUp]) {
        expect(await steps.record(stepOf(ref, 'a', what))).toMatchObject({
          recorded: false,
          current: false,
        })
      }
      expect(await steps.readJournal(ref)).toEqual([])
    }
  })

  it('an intent is filled in once, by a result of its kind', async () => {
    const { steps, ...test } = await open()
    const ref = await claimNew(test, claimOf())
    await steps.record(stepOf(ref, 'a', intent))
    expect(await steps.record(stepOf(ref, 'a', intent))).toMatchObject({ recorded: false })
    const other = stepOf(ref, 'a', { kind: 'transaction' })
    expect(await steps.record(other)).toMatchObject({ recorded: false })
    expect(await steps.record(stepOf(ref, 'a'))).toMatchObject({ recorded: true })
    expect(await steps.record(stepOf(ref, 'a', failure))).toMatchObject({ recorded: false })
    expect(await steps.readJournal(ref)).toMatchObject([{ completed: true, error: null }])
  })

  it('big values share statements only up to a bound, and all arrive', async () => {
    const { steps, ...test } = await open()
    const ref = await claimNew(test, claimOf())
    const output = Buffer.alloc(3 * 1024 ** 2, '1')
    const names = Array.from({ length: 7 }, (_, i) => `big ${i}`)
    await Promise.all(names.map((name) => steps.record(stepOf(ref, name, { output }))))
    const journal = await steps.readJournal(ref)
    expect(journal.map(({ output }) => output?.length)).toEqual(names.map(() => output.length))
  })
})

describe('giving up', () => {
  it('is decided once, by the current attempt, and then nobody else completes', async () => {
    const [one, two] = [await open(), await open()]
    const { old, current } = await takenOver(one, two)
    expect(await one.steps.record(stepOf(old, '', giveUp))).toMatchObject({ recorded: false })
    const decisions = await Promise.all(
      [1, 2].map(() => two.steps.record(stepOf(current, '', giveUp))),
    )
    expect(decisions.map(({ recorded }) => recorded).sort()).toEqual([false, true])
    expect(await one.store.complete(completionOf(old, 'late'))).toMatchObject({ kind: 'found' })
    await two.store.release(current, 'released')
    expect(await two.store.complete(completionOf(current, 'late'))).toMatchObject({ kind: 'found' })
    await one.live(60_000)
    const next = await one.store.takeOver(old.id, await lookAt(one, old.id))
    expect(await one.store.complete(completionOf(next as AttemptRef, 'undone'))).toEqual({
      kind: 'stored',
    })
  })

  it('races with the success of a stale attempt: one of the two happens', async () => {
    const [one, two] = [await open(), await open()]
    for (let round = 0; round < 20; round++) {
      await one.live(60_000)
      const { old, current } = await takenOver(one, two)
      const [decided, completed] = await Promise.all([
        two.steps.record(stepOf(current, '', giveUp)),
        one.store.complete(completionOf(old, 'late')),
      ])
      expect([decided.recorded, completed.kind === 'stored'].filter(Boolean)).toHaveLength(1)
    }
  })
})

describe('journal', () => {
  it('is in the order of the positions, and of one incarnation', async () => {
    const { steps, ...test } = await open()
    const ref = await claimNew(test, claimOf())
    const order = shuffled(Array.from({ length: 50 }, (_, i) => i + 1))
    for (const n of order) await steps.record(stepOf(ref, `${n}`, { position: n }))
    const names = (await steps.readJournal(ref)).map(({ name }) => Number(name))
    expect(names).toEqual([...order].sort((a, b) => a - b))
    expect(await steps.readJournal({ ...ref, incarnation: '1' })).toEqual([])
  })
})
