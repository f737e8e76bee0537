import { describe, expect, it } from 'vitest'
import type { Blocked } from '../../lib/store/wait-store.ts'
import { WaitGraph } from '../../lib/workflow/wait-graph.ts'

let created = 0n
/** An execution that waits for others. */
function waiting(id: string, awaits: string[], other: Partial<Blocked> = {}): Blocked {
  return {
    ...{ id, kind: 'workflow', name: id, key: id, scope: '', createdAt: ++created },
    ...{ isSuspended: true, goesOn: false, isQueueOpen: false, awaits, lender: null },
    ...{ place: null, queue: null, lane: null },
    ...other,
  }
}
/** An execution that has not begun. */
function outside(id: string, place: 'key' | 'queue', other: Partial<Blocked> = {}): Blocked {
  return waiting(id, [], { isSuspended: false, goesOn: true, place, queue: 'q', ...other })
}
const running = (id: string, other: Partial<Blocked> = {}) =>
  waiting(id, [], { isSuspended: false, goesOn: true, ...other })

const decide = (nodes: Blocked[], id: string) => new WaitGraph(nodes).decide(id)
const inQueue = (other: Partial<Blocked> = {}) => ({ place: 'in' as const, queue: 'q', ...other })

describe('A circle', () => {
  it('is broken at the youngest that waits in it, whoever looks', () => {
    const nodes = [waiting('a', ['b']), waiting('b', ['c']), waiting('c', ['a'])]
    const outsider = waiting('d', ['a'])
    for (const id of ['a', 'b', 'c', 'd']) {
      expect(decide([...nodes, outsider], id)).toMatchObject({
        kind: 'deadlock',
        victim: 'c',
        execution: 'a',
        circle: [{ id: 'c' }, { id: 'a' }, { id: 'b' }],
      })
    }
  })

  it('is broken at one that has its place, since one that has lent it cannot go on before it is back', () => {
    const nodes = [
      waiting('a', ['c'], inQueue()),
      waiting('b', ['a'], inQueue({ lender: 'c' })),
      waiting('c', ['b'], inQueue({ place: 'lent' })),
    ]
    for (const id of ['a', 'b', 'c'])
      expect(decide(nodes, id)).toMatchObject({ kind: 'deadlock', victim: 'b', execution: 'a' })
  })

  it.each([
    ['one of them has a timer or hears a signal', waiting('b', ['a'], { goesOn: true })],
    ['one of them also waits for one that runs', waiting('b', ['a', 'r'])],
    ['one of them also waits for one that has ended', waiting('b', ['a', 'ended'])],
    ['one of them runs', running('b')],
  ])('is none where %s', (_, b) => {
    expect(decide([waiting('a', ['b']), b, running('r')], 'a')).toEqual({ kind: 'none' })
  })

  it('may lead through lanes and queues', () => {
    const object = { queue: 'object o' }
    const nodes = [
      waiting('x', ['call y'], { ...object, place: 'in', lane: 'x' }),
      waiting('y', ['call x'], { ...object, place: 'in', lane: 'y' }),
      outside('call x', 'key', { ...object, lane: 'x' }),
      outside('call y', 'key', { ...object, lane: 'y' }),
    ]
    expect(decide(nodes, 'x')).toMatchObject({ victim: 'y', execution: 'call x' })
    expect(decide([...nodes, running('z', { ...object, place: 'in', lane: 'y' })], 'x')).toEqual({
      kind: 'none',
    })
  })
})

describe('A place', () => {
  it('is lent to what the holder waits for, directly or through others', () => {
    const child = outside('child', 'queue')
    const between = waiting('between', ['child'])
    for (const nodes of [
      [waiting('top', ['child'], inQueue()), child],
      [waiting('top', ['between'], inQueue()), between, child],
    ]) {
      const loan = { kind: 'lend', lender: 'top', borrower: 'child' }
      expect(decide([...nodes, running('other', inQueue())], 'top')).toEqual(loan)
      expect(decide([...nodes, running('other', inQueue())], 'child')).toEqual(loan)
    }
  })

  it('is not lent to one that the queue has room for, nor twice, nor by one that runs', () => {
    const top = waiting('top', ['child', 'second'], inQueue())
    const open = outside('child', 'queue', { isQueueOpen: true })
    expect(decide([top, open], 'top')).toEqual({ kind: 'none' })
    const lent = { ...top, place: 'lent' as const }
    const borrower = running('child', { ...inQueue(), lender: 'top' })
    expect(decide([lent, borrower, outside('second', 'queue')], 'top')).toEqual({ kind: 'none' })
    expect(decide([running('top', inQueue()), outside('child', 'queue')], 'top')).toEqual({
      kind: 'none',
    })
  })

  it('in a lane is lent within the key only, and never that of an object', () => {
    const top = waiting('top', ['child'], inQueue({ lane: 'k' }))
    expect(decide([top, outside('child', 'key', { lane: 'k' })], 'top')).toMatchObject({
      kind: 'lend',
    })
    const holder = running('holder', inQueue({ lane: 'other' }))
    const other = outside('child', 'key', { lane: 'other' })
    expect(decide([top, holder, other], 'top')).toEqual({ kind: 'none' })
    const object = [
      { ...top, queue: 'object o' },
      outside('child', 'key', { queue: 'object o', lane: 'k' }),
    ]
    expect(decide(object, 'top')).toMatchObject({ kind: 'deadlock', victim: 'top' })
  })

  it('is lent to a stranger whom everybody waits for, rather than that a wait ends', () => {
    // The child's lane is held by a stranger, who waits for the queue that the parent is in.
    const nodes = [
      waiting('parent', ['child'], inQueue({ lane: 'a' })),
      outside('child', 'key', { lane: 'b' }),
      outside('stranger', 'queue', { lane: 'b' }),
    ]
    expect(decide(nodes, 'parent')).toEqual({
      kind: 'lend',
      lender: 'parent',
      borrower: 'stranger',
    })
  })
})
