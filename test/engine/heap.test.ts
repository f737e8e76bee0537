import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import type { Engine } from '../../lib/engine/engine.ts'
import type { Execution } from '../../lib/engine/execution.ts'
import { withTimeout } from '../../lib/engine/retry/with-timeout.ts'
import { runWithRetries } from '../../lib/engine/steps/step.ts'
import { Worker } from '../../lib/engine/worker.ts'
import { ChangeListener } from '../../lib/store/change-listener.ts'
import type { Database } from '../../lib/store/database/database.ts'
import type { DueExecutions, LeasedExecution, WakeupStore } from '../../lib/store/wakeup-store.ts'
import { heapGrowth } from '../helpers/heap.ts'
import { cases, proofOnly } from '../helpers/proof.ts'

const MIB = 2 ** 20
const never = new Promise<string>(() => {})

/** A store in which executions are always due until `total` have been leased; the first one runs for ever. */
function startWorker(total: number) {
  let leased = 0
  let ended = 0
  let onEnd = () => {}
  const wakeups = {
    async leaseDue(_handlers: string[], limit: number): Promise<DueExecutions> {
      const count = Math.min(limit, total - leased)
      const executions = Array.from({ length: count }, () => ({ id: `${++leased}`, attempt: 1 }))
      return {
        leased: executions as LeasedExecution[],
        parked: [],
        cancelling: [],
        examined: count,
        locked: 0,
      }
    },
    nextDue: async () => null,
  }
  const worker = new Worker({
    engine: { busyIds: [] as string[] } as Engine,
    wakeups: wakeups as unknown as WakeupStore,
    handlers: () => ['workflow'],
    concurrency: 2,
    run: async ({ id }) => {
      if (id === '1') return void (await never)
      // Until the poll that leased it is over and has found the worker full.
      await new Promise((resolve) => setImmediate(resolve))
      ended++
      onEnd()
    },
    logger: { debug() {}, warn() {} },
  })
  worker.start()
  const until = (count: number) =>
    new Promise<void>((resolve) => {
      onEnd = () => {
        if (ended >= count) resolve()
      }
      onEnd()
    })
  return { worker, until }
}

describe('The heap stays flat', () => {
  const short = cases(20_000, { proof: 1_000_000 })

  it(`while a worker runs ${short} short executions beside one that never ends`, async () => {
    const { worker, until } = startWorker(short + 1000)
    await until(900)
    expect(await heapGrowth(() => until(short))).toBeLessThan(4 * MIB)
    await worker.stop()
  })

  it('while one attempt is waited for very often', async () => {
    const wait = async () => {
      const controller = new AbortController()
      const result = withTimeout(60_000, never, controller.signal)
      controller.abort()
      return result
    }
    for (let n = 0; n < 1000; n++) await wait()
    const growth = await heapGrowth(async () => {
      for (let n = 0; n < 20_000; n++) await wait()
    })
    expect(growth).toBeLessThan(4 * MIB)
  })

  proofOnly('while one attempt runs very many steps that have a timeout', async () => {
    const { signal } = new AbortController()
    const options = {
      retry: { attempts: 1, backoff: { firstMs: 0, maxMs: 0 }, retryIf: () => false },
      timeoutMs: 60_000,
    }
    const step = () =>
      runWithRetries(
        { abortSignal: signal } as Execution,
        { name: 'step', occurrence: 1 },
        'key',
        async (context) => void context.signal,
        options,
      )
    for (let n = 0; n < 1000; n++) await step()
    const growth = await heapGrowth(async () => {
      for (let n = 0; n < 20_000; n++) await step()
    })
    expect(growth).toBeLessThan(2 * MIB)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  proofOnly('while a connection that is to listen is not there yet', async () => {
    const listener = new ChangeListener(
      { listen: () => never as never } as Partial<Database> as Database,
      'pawl',
    )
    listener.subscribe('other', () => {})
    const wait = () => listener.waitFor('id', async () => 'found', 60_000)
    for (let n = 0; n < 1000; n++) await wait()
    const growth = await heapGrowth(async () => {
      for (let n = 0; n < 20_000; n++) await wait()
    })
    expect(growth).toBeLessThan(4 * MIB)
  })
})

describe('A wait with a timeout', () => {
  it('gets the value or the error of its promise, however many wait for it', async () => {
    let resolve = (_: string) => {}
    const promise = new Promise<string>((fulfil) => {
      resolve = fulfil
    })
    const waits = [withTimeout(60_000, promise), withTimeout(60_000, promise)]
    expect(await withTimeout(1, promise)).toBe(null)
    resolve('value')
    expect(await Promise.all(waits)).toEqual(['value', 'value'])
    expect(await withTimeout(60_000, promise)).toBe('value')
    const failed = Promise.reject(new Error('failed'))
    await expect(withTimeout(60_000, failed)).rejects.toThrow('failed')
    await expect(withTimeout(60_000, failed)).rejects.toThrow('failed')
  })
})
