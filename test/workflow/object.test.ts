import { describe, expect, it } from 'vitest'
import { withDatabase } from '../helpers/database.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('An object', () => {
  it('runs the calls of one key one at a time, in their order, and keeps its state', async () => {
    const pawl = app.pawl()
    let running = 0
    const cart = pawl.object('cart', {
      handlers: {
        add: async (execution, item: string) => {
          expect(++running).toBe(1)
          const items = (await execution.state.get<string[]>('items')) ?? []
          await new Promise((resolve) => setTimeout(resolve, 2))
          await execution.state.set('items', [...items, item])
          running--
          return items.length + 1
        },
      },
      readers: { items: (execution) => execution.state.get<string[]>('items') },
    })
    await pawl.start()
    const mine = cart.of('ada')
    const counts = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((item) => mine.add(item)))
    expect(counts).toEqual([1, 2, 3, 4, 5])
    expect(await mine.items()).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(await mine.state()).toEqual({ items: ['a', 'b', 'c', 'd', 'e'] })
    expect(await cart.of('bob').items()).toBeUndefined()
  })
})
