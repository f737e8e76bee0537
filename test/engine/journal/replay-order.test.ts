import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ReplayOrder } from '../../../lib/engine/journal/replay-order.ts'

/** Lets positions pass and notes the order in which their code goes on, behind some promises. */
function passing(replayOrder: ReplayOrder) {
  const order: number[] = []
  const pass = async (position: number, hops = 0) => {
    await replayOrder.waitForTurn(position)
    for (let i = 0; i < hops; i++) await null
    order.push(position)
  }
  return { order, pass }
}

describe('ReplayOrder', () => {
  it('releases recorded positions in their order, however many promises wrap them', async () => {
    const replayOrder = new ReplayOrder(4)
    const { order, pass } = passing(replayOrder)
    await Promise.all([pass(4), pass(2, 100), pass(3, 1), pass(1, 50)])
    expect(order).toEqual([1, 2, 3, 4])
  })

  it('releases live positions in the order in which they were reserved', async () => {
    const replayOrder = new ReplayOrder(0)
    const { order, pass } = passing(replayOrder)
    const positions = [replayOrder.reserve(), replayOrder.reserve(), replayOrder.reserve()] as const
    const late = pass(positions[2])
    const second = pass(positions[1], 20)
    await sleep(5)
    expect(order).toEqual([])
    await Promise.all([pass(positions[0], 30), second, late])
    expect(order).toEqual([1, 2, 3])
  })

  it('does not wait for cancelled positions, nor long for recorded ones that the code does not call', async () => {
    const replayOrder = new ReplayOrder(3)
    const { order, pass } = passing(replayOrder)
    const [a, b, c] = [replayOrder.reserve(), replayOrder.reserve(), replayOrder.reserve()] as const
    const passed = [pass(c), pass(b)]
    replayOrder.cancel(a)
    await Promise.all(passed)
    expect(order).toEqual([5, 6])
    replayOrder.cancel(replayOrder.reserve())
    await pass(replayOrder.reserve())
    expect(order).toEqual([5, 6, 8])
  })

  it('waits only a while for a recorded position that is not called, and releases it later', async () => {
    const replayOrder = new ReplayOrder(5)
    const { order, pass } = passing(replayOrder)
    await Promise.all([pass(5), pass(2), pass(4)])
    expect(order).toEqual([2, 4, 5])
    await Promise.all([pass(3), pass(1)])
    expect(order.slice(3).sort()).toEqual([1, 3])
  })

  it('releases thousands', async () => {
    const replayOrder = new ReplayOrder(5000)
    const { order, pass } = passing(replayOrder)
    await Promise.all(Array.from({ length: 5000 }, (_, i) => pass(5000 - i)))
    expect(order).toEqual(Array.from({ length: 5000 }, (_, i) => i + 1))
  })

  it('releases live positions after all recorded ones, which had happened by then', async () => {
    const replayOrder = new ReplayOrder(2)
    const { order, pass } = passing(replayOrder)
    const fresh = pass(replayOrder.reserve())
    await pass(1)
    // As code does that asks for the next one a moment later.
    await sleep(50)
    await pass(2)
    await fresh
    expect(order).toEqual([1, 2, 3])
  })
})
