import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Gate } from '../../../lib/engine/journal/replay-order.ts'

/** Lets positions pass and notes the order in which their code goes on, behind some promises. */
function passing(gate: Gate) {
  const order: number[] = []
  const pass = async (position: number, hops = 0) => {
    await gate.pass(position)
    for (let i = 0; i < hops; i++) await null
    order.push(position)
  }
  return { order, pass }
}

describe('Gate', () => {
  it('lets recorded positions out in their order, whatever stands around them', async () => {
    const gate = new Gate(4)
    const { order, pass } = passing(gate)
    await Promise.all([pass(4), pass(2, 100), pass(3, 1), pass(1, 50)])
    expect(order).toEqual([1, 2, 3, 4])
  })

  it('lets live positions out in the order in which they were taken', async () => {
    const gate = new Gate(0)
    const { order, pass } = passing(gate)
    const positions = [gate.take(), gate.take(), gate.take()] as const
    const late = pass(positions[2])
    const second = pass(positions[1], 20)
    await sleep(5)
    expect(order).toEqual([])
    await Promise.all([pass(positions[0], 30), second, late])
    expect(order).toEqual([1, 2, 3])
  })

  it('does not wait for positions that were withdrawn, nor long for recorded ones that nobody asks for', async () => {
    const gate = new Gate(3)
    const { order, pass } = passing(gate)
    const [a, b, c] = [gate.take(), gate.take(), gate.take()] as const
    const passed = [pass(c), pass(b)]
    gate.withdraw(a)
    await Promise.all(passed)
    expect(order).toEqual([5, 6])
    gate.withdraw(gate.take())
    await pass(gate.take())
    expect(order).toEqual([5, 6, 8])
  })

  it('waits for a recorded position that is not asked for only for a while, and lets it pass later', async () => {
    const gate = new Gate(5)
    const { order, pass } = passing(gate)
    await Promise.all([pass(5), pass(2), pass(4)])
    expect(order).toEqual([2, 4, 5])
    await Promise.all([pass(3), pass(1)])
    expect(order.slice(3).sort()).toEqual([1, 3])
  })

  it('lets thousands pass', async () => {
    const gate = new Gate(5000)
    const { order, pass } = passing(gate)
    await Promise.all(Array.from({ length: 5000 }, (_, i) => pass(5000 - i)))
    expect(order).toEqual(Array.from({ length: 5000 }, (_, i) => i + 1))
  })

  it('lets what is new out after all that was recorded, which had happened by then', async () => {
    const gate = new Gate(2)
    const { order, pass } = passing(gate)
    const fresh = pass(gate.take())
    await pass(1)
    // As code does that asks for the next one a moment later.
    await sleep(50)
    await pass(2)
    await fresh
    expect(order).toEqual([1, 2, 3])
  })
})
