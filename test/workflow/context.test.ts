import { AsyncLocalStorage } from 'node:async_hooks'
import { beforeEach, describe, expect, it } from 'vitest'
import { idempotency } from '../../lib/adapters/express.ts'
import {
  currentExecution,
  type Execution,
  TerminalError,
  type WorkflowExecution,
} from '../../lib/index.ts'
import { startApp } from '../helpers/app.ts'
import { withDatabase } from '../helpers/database.ts'
import { usedHeap } from '../helpers/heap.ts'
import { latch } from '../helpers/latch.ts'
import { hang, withRecovery } from '../helpers/recovery.ts'
import { freshKey, request } from '../helpers/request.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { withWorkflows } from '../helpers/workflows.ts'

const database = withDatabase()
const app = withWorkflows(database)
const { start, bury, state } = withRecovery(database)

/** The app's own: each request runs in the context of its tenant. */
const tenants = new AsyncLocalStorage<string>()

/** What code saw: where it was, and the tenant. */
let seen: [where: string, tenant: string | undefined][] = []
const see = (where: string) => void seen.push([where, tenants.getStore()])
const nobody = (...places: string[]) => places.map((place) => [place, undefined])

beforeEach(() => {
  seen = []
})

const pause = () => new Promise((resolve) => setTimeout(resolve, 1))

describe('The code of a workflow sees the context of no request', () => {
  it('neither of the one that started it nor of the one that woke its worker', async () => {
    const pawl = app.pawl({ workers: { concurrency: 1 } })
    const held = latch()
    const first = pawl.workflow('first', async () => {
      see('first')
      await held.wait
      see('first, later')
    })
    const second = pawl.workflow('second', { retry: { attempts: 1 } }, async (execution) => {
      see('start')
      await execution.step('step', () => see('step'))
      await pause()
      see('timer')
      await execution.step('tried', () => see('tried'), { compensate: () => see('undone') })
      await execution.transaction('transaction', () => see('transaction'))
      await execution.sleep(300)
      see('slept')
      await execution.signal('go')
      see('signalled')
      await other.start(null)
      throw new TerminalError('enough')
    })
    const other = pawl.workflow('other', async (execution) => {
      see('child')
      expect(currentExecution()?.id).toBe(execution.id)
    })
    await tenants.run('of start()', () => pawl.start())
    const handle = await tenants.run('A', async () => {
      await first.start(null)
      return second.start(null)
    })
    await tenants.run('B', async () => {
      await other.start(null)
      held.open()
      await app.until(handle.id, 'waiting')
      await pawl.signal(handle.id, 'go')
      await expect(handle.result()).rejects.toThrow('enough')
    })
    // With room for one, the first may run last.
    await waitFor('the first', () => seen.some(([place]) => place === 'first, later'))
    await waitFor('both others', () => seen.filter(([place]) => place === 'child').length === 2)
    expect(new Set(seen.map(([, tenant]) => tenant))).toEqual(new Set([undefined]))
    const places = new Set(seen.map(([place]) => place))
    for (const place of [
      'first',
      'first, later',
      'start',
      'timer',
      'slept',
      'signalled',
      'undone',
    ]) {
      expect(places).toContain(place)
    }
  })

  it('which may enter a context of its own, and leaves it to nobody', async () => {
    const pawl = app.pawl()
    const workflow = pawl.workflow('enters', async () => {
      see('before')
      tenants.enterWith('entered')
    })
    await pawl.start()
    for (let n = 0; n < 3; n++) await (await workflow.start(null)).result()
    expect(seen).toEqual(nobody('before', 'before', 'before'))
    expect(tenants.getStore()).toBeUndefined()
  })

  it('objects and their readers too', async () => {
    const pawl = app.pawl()
    const counter = pawl.object('counter', {
      handlers: {
        add: async (execution, n: number) => {
          see('handler')
          const count = ((await execution.state.get<number>('count')) ?? 0) + n
          await execution.state.set('count', count)
          see('handler, later')
          return count
        },
      },
      readers: {
        count: async (execution) => {
          see('reader')
          return execution.state.get<number>('count')
        },
      },
    })
    await pawl.start()
    await Promise.all([
      tenants.run('A', () => counter.of('x').add(1)),
      tenants.run('B', () => counter.of('x').add(1)),
    ])
    expect(await tenants.run('B', () => counter.of('x').count())).toBe(2)
    expect(seen.sort()).toEqual(
      nobody('handler', 'handler', 'handler, later', 'handler, later', 'reader'),
    )
  })

  it('schedules too, also one that a request adds', async () => {
    const pawl = app.pawl()
    const workflow = pawl.workflow('tick', async (_: WorkflowExecution, input: string) =>
      see(input),
    )
    await tenants.run('of start()', () => pawl.start())
    tenants.run('A', () => {
      const input = () => {
        see('input')
        return 'tick'
      }
      pawl.schedule('often', { cron: '* * * * * *', input }, workflow)
    })
    await waitFor('two ticks', () => seen.filter(([place]) => place === 'tick').length >= 2)
    expect(new Set(seen.map(([, tenant]) => tenant))).toEqual(new Set([undefined]))
  })
})

describe('A request', () => {
  it('that a worker finishes sees the context of no other request', async () => {
    const key = freshKey()
    const victim = await start({ handler: hang })
    request(`${victim.url}/`, { key }).catch(() => {})
    await waitFor('the claim', async () => (await state(key))?.status === 'running')
    await bury()
    await tenants.run('B', () =>
      start({
        handler: async (execution, _req, res) => {
          see('handler')
          await execution.step('step', () => see('step'))
          await pause()
          see('later')
          res.json({})
        },
      }),
    )
    await waitFor('the outcome', async () => (await state(key)).status === 'done')
    expect(seen).toEqual(nobody('handler', 'step', 'later'))
  })

  it('keeps its own context, in steps and transactions too', async () => {
    const { url, pawl } = await startApp(
      database.url,
      undefined,
      (app) => {
        app.use((req, _res, next) => tenants.run(req.get('tenant') as string, next))
        app.use((req, res, next) => middleware(req, res, next))
        app.post('/', async (req, res) => {
          const execution = req.execution as Execution
          see('handler')
          await execution.step('step', () => see('step'))
          await pause()
          see('later')
          await execution.transaction('transaction', () => see('transaction'))
          res.json({})
        })
      },
      { mount: false },
    )
    const middleware = idempotency(pawl)
    const ask = (tenant: string) => request(url, { key: freshKey(), headers: { tenant } })
    await Promise.all(['A', 'B', 'A', 'B'].map(ask))
    const own = ['handler', 'later', 'step', 'transaction']
    const all = own.flatMap((place) => ['A', 'A', 'B', 'B'].map((tenant) => [place, tenant]))
    expect(seen.sort()).toEqual(all)
  })
})

describe('The context of a request', () => {
  it('is not kept in memory once the request is over, by connections, timers or listeners', async () => {
    // A pool of Pawl's own, whose connections are opened when they are needed.
    const pawl = app.pawl({ database: database.url })
    const objects = new AsyncLocalStorage<object>()
    const quick = pawl.workflow('quick', async () => {})
    const sleeper = pawl.workflow('sleeper', async (execution) => execution.sleep('1 hour'))
    const inRequest = <T>(work: () => Promise<T>) => {
      const store = {}
      contexts.push(new WeakRef(store))
      return objects.run(store, work)
    }
    const contexts: WeakRef<object>[] = []
    await inRequest(() => pawl.start())
    await inRequest(async () => (await quick.start(null)).result())
    const { id } = await inRequest(() => sleeper.start(null))
    await app.until(id, 'waiting')
    await inRequest(async () => {
      await Promise.all([1, 2, 3].map(() => quick.start(null)))
    })
    await waitFor('no context', async () => {
      await usedHeap()
      return contexts.every((context) => context.deref() === undefined)
    })
  })
})
