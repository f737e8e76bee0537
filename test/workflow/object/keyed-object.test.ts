import { describe, expect, expectTypeOf, it } from 'vitest'
import { withDatabase } from '../../helpers/database.ts'
import { waitFor } from '../../helpers/wait-for.ts'
import { withWorkflows } from '../../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)

describe('An object', () => {
  it('runs the calls of one key one at a time, in their order, and keeps its state', async () => {
    const pawl = app.pawl()
    // An attempt that dies under load is no second call.
    const running = new Set<string>()
    let most = 0
    const cart = pawl.object('cart', {
      handlers: {
        add: async (execution, item: string) => {
          most = Math.max(most, running.add(execution.id).size)
          const items = (await execution.state.get<string[]>('items')) ?? []
          await new Promise((resolve) => setTimeout(resolve, 2))
          await execution.state.set('items', [...items, item])
          running.delete(execution.id)
          return items.length + 1
        },
        clear: async (execution) => execution.state.delete('items'),
      },
      readers: { items: (execution) => execution.state.get<string[]>('items') },
    })
    await pawl.start()
    const mine = cart.of('ada')
    const counts = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((item) => mine.add(item)))
    expectTypeOf(counts).toEqualTypeOf<number[]>()
    expect(counts).toEqual([1, 2, 3, 4, 5])
    expect(most).toBe(1)
    expect(await mine.items()).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(await mine.state()).toEqual({ items: ['a', 'b', 'c', 'd', 'e'] })
    const log = await database.pool.query(`select value from pawl.state_log where key = 'ada'`)
    expect(log.rows).toEqual([{ value: ['a', 'b', 'c', 'd', 'e'] }])
    expect(await cart.of('bob').items()).toBeUndefined()
    const handle = await mine.start('add', 'f', { key: 'once' })
    expect((await mine.start('add', 'f', { key: 'once' })).id).toBe(handle.id)
    expect((await cart.of('bob').start('add', 'f', { key: 'once' })).id).not.toBe(handle.id)
    expect(await mine.handle('add', 'once').result()).toBe(6)
    await mine.clear()
    expect(await mine.state()).toEqual({})
    // @ts-expect-error there is no such handler
    expect(mine.remove).toBeUndefined()
  })

  it('sees in every attempt what it saw in the first, and changes its state once', async () => {
    const pawl = app.pawl({ encryptionKeys: [{ id: 'k', key: Buffer.alloc(32, 7) }] })
    const seen: unknown[] = []
    const counter = pawl.object('counter', {
      retry: { attempts: 3, backoff: 1 },
      handlers: {
        count: async (execution) => {
          const before = (await execution.state.get<number>('n')) ?? 0
          await execution.state.set('n', before + 1)
          const after = await execution.state.get<number>('n')
          seen.push([execution.attempt, before, after, await execution.state.keys()])
          if (execution.attempt < 3) throw new Error('again')
          return after
        },
      },
    })
    await pawl.start()
    expect(await counter.of('k').count()).toBe(1)
    expect(seen).toEqual([1, 2, 3].map((attempt) => [attempt, 0, 1, ['n']]))
    expect(await counter.of('k').state()).toEqual({ n: 1 })
    const { rows } = await database.pool.query(
      `select value from pawl.state_log where object = 'counter'`,
    )
    expect(rows[0].value).toMatch(/encrypted with key k/)
  })

  it('refuses a change by an attempt that is superseded', async () => {
    const pawl = app.pawl()
    let goOn = () => {}
    const stale = new Promise<void>((resolve) => {
      goOn = resolve
    })
    let refused: unknown
    const account = pawl.object('account', {
      handlers: {
        deposit: async (execution) => {
          await execution.step('begin', () => 1)
          await stale
          await execution.state.set('owner', 'stale').catch((error) => {
            refused = error
            throw error
          })
        },
      },
    })
    await pawl.start()
    const handle = await account.of('k').start('deposit')
    await waitFor('its first step', async () => (await app.journal(handle.id)).length === 1)
    // Another process has taken over.
    await database.pool.query(
      'update pawl.executions set owner = gen_random_uuid(), attempt = attempt + 1 where id = $1',
      [handle.id],
    )
    goOn()
    await waitFor('it to be refused', () => refused)
    expect(refused).toMatchObject({ code: 'superseded' })
    expect(await account.of('k').state()).toEqual({})
    expect(await app.journal(handle.id)).toEqual(['step begin'])
  })

  it('is called by a workflow durably, and refuses to wait for itself', async () => {
    const pawl = app.pawl()
    const seat = pawl.object('seat', {
      handlers: {
        take: async (execution, who: string): Promise<string> => {
          await execution.state.set('who', who)
          return `${who} in ${execution.objectKey}`
        },
        again: (execution): Promise<string> => seat.of(execution.objectKey).take('me'),
        later: async (execution): Promise<string> => {
          const handle = await seat.of(execution.objectKey).start('take', 'later')
          return handle.result()
        },
      },
    })
    const booking = pawl.workflow('booking', async (_, id: string) => seat.of(id).take('ada'))
    await pawl.start()
    const handle = await booking.start('1a')
    expect(await handle.result()).toBe('ada in 1a')
    expect(await app.journal(handle.id)).toEqual([
      'child start seat.take',
      expect.stringMatching(/^result result seat\.take [0-9a-f-]{36}$/),
    ])
    for (const name of ['again', 'later'] as const) {
      const call = await seat.of('1b').start(name)
      await app.until(call.id, 'parked')
      expect((await call.status()).error?.message).toMatch(/waits for a call of the same key/)
      // It holds its key no more.
      expect(await seat.of('1b').take('eve')).toBe('eve in 1b')
      await call.cancel()
      await app.until(call.id, 'cancelled')
    }
  })

  it('keeps readers from changing state, and workflows from having any', async () => {
    const pawl = app.pawl()
    const errors: unknown[] = []
    const strict = pawl.object('strict', {
      handlers: { noop: () => 1 },
      readers: {
        write: async (execution) => {
          const { state } = execution as unknown as {
            state: { set(a: string, b: number): unknown }
          }
          await Promise.resolve(state.set('a', 1)).catch((error) => errors.push(error))
        },
      },
    })
    const plain = pawl.workflow('plain', async (execution) => {
      try {
        return (execution as unknown as { state: unknown }).state
      } catch (error) {
        errors.push(error)
      }
    })
    await pawl.start()
    await strict.of('k').write()
    await (await plain.start(undefined)).result()
    expect(errors).toMatchObject([{ code: 'read-only' }, { code: 'no-state' }])
    expect(() => strict.of('')).toThrow(/key of 1 to 1024/)
    expect(() => pawl.object('bad', { handlers: { state: () => 1 } })).toThrow(/a reserved name/)
    expect(() => pawl.queue('object strict')).toThrow(/reserved for objects/)
  })

  it('runs readers concurrently with a handler', async () => {
    const pawl = app.pawl()
    const door = pawl.object('door', {
      handlers: {
        open: async (execution) => {
          await execution.state.set('open', 1)
          await execution.signal('close')
        },
      },
      readers: { isOpen: async (execution) => (await execution.state.get('open')) === 1 },
    })
    await pawl.start()
    const handle = await door.of('k').start('open')
    await waitFor('it to be open', () => door.of('k').isOpen())
    await handle.signal('close')
    await handle.result()
  })
})
