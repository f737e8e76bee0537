/**
 * The app of the chaos test, in a process of its own: everything that Pawl can run, with effects that leave rows in the
 * ledger. `POST /op` and `POST /recovered` take one operation each. Settings come as JSON in PAWL. Prints its URL, and
 * then each warning as a line of JSON.
 */
import express, { type Request, type Response } from 'express'
import pg from 'pg'
import { idempotency } from '../../lib/adapters/express.ts'
import {
  CancelledError,
  type Execution,
  Pawl,
  PawlError,
  StepInterruptedError,
  type Workflow,
  type WorkflowExecution,
} from '../../lib/index.ts'
import { type HoldLimits, Ledger } from './chaos-ledger.ts'
import { serveUntilTerminated } from './serve.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL as string, max: 8 })
pool.on('error', () => {})
const ledger = new Ledger(process.env.LEDGER_URL as string)
const logger = {
  debug() {},
  warn(message: string, fields?: Record<string, unknown>) {
    console.log(JSON.stringify({ message, ...fields, error: String(fields?.error ?? '') }))
  },
}
const pawl = new Pawl({ database: pool, logger, ...JSON.parse(process.env.PAWL ?? '{}') })

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const retry = { attempts: 1000, backoff: '100ms', maxBackoff: '1s' } as const

/** A step whose every run leaves a row in the ledger. */
function effect(execution: Execution, name: string, options = {}): Promise<string> {
  return execution.step(name, () => ledger.effect(execution, name), options)
}

/** Runs code between two steps that note the beginning and the end of its place in a queue. */
async function holding<T>(
  execution: WorkflowExecution,
  limits: HoldLimits,
  code: () => Promise<T>,
): Promise<T> {
  try {
    // Once it has recorded something its code runs also if it is cancelled, and lets go.
    await execution.step('come', () => true)
    await execution.step('hold', () => ledger.hold(execution.id, limits, 'begun'))
    const result = await code()
    await execution.step('let go', () => ledger.hold(execution.id, limits, 'ended'))
    return result
  } catch (error) {
    // A cancelled execution begins no step any more.
    if (error instanceof CancelledError) await ledger.hold(execution.id, limits, 'ended')
    throw error
  }
}

const narrow = pawl.queue('narrow', { concurrency: 4, concurrencyPerKey: 1 })
const job = pawl.workflow(
  'job',
  { retry, queue: narrow },
  async (execution, { n, key }: { n: number; key: string }) => {
    await ledger.attempt(execution)
    const limits = { queue: 'narrow', concurrency: 4, key, perKey: 1 }
    return holding(execution, limits, async () => {
      await effect(execution, 'work', { compensate: () => ledger.effect(execution, 'undo') })
      if (n % 4 === 0) await execution.sleep(1100)
      await effect(execution, 'rest')
      return n * 3
    })
  },
)

const family = pawl.queue('family', { concurrency: 3, concurrencyPerKey: 2 })
const familyLimits = (key: string) => ({ queue: 'family', concurrency: 3, key, perKey: 2 })
const grandchild = pawl.workflow(
  'grandchild',
  { retry, queue: family },
  async (execution, { n, key }: { n: number; key: string }) => {
    await ledger.attempt(execution)
    return holding(execution, familyLimits(key), async () => {
      await effect(execution, 'play')
      return n * 2
    })
  },
)
/** One in three has a child of its own, to which it lends the place that it may have from its parent. */
const child = pawl.workflow(
  'child',
  { retry, queue: family },
  async (execution, { n, key }: { n: number; key: string }) => {
    await ledger.attempt(execution)
    const limits = familyLimits(key)
    return holding(execution, limits, async () => {
      await effect(execution, 'play')
      if (n % 3 > 0) return n * 2
      const handle = await grandchild.start({ n, key }, { queueKey: key })
      await execution.step('lend', () => ledger.hold(execution.id, limits, 'lent'))
      const result = await handle.result()
      await execution.step('return', () => ledger.hold(execution.id, limits, 'returned'))
      return result
    })
  },
)
const parent = pawl.workflow(
  'parent',
  { retry, queue: family },
  async (execution, { n, key }: { n: number; key: string }) => {
    await ledger.attempt(execution)
    const limits = familyLimits(key)
    return holding(execution, limits, async () => {
      const options = { queueKey: key, delay: n % 5 === 0 ? 700 : 0 }
      const children = await child.startMany(
        [n, n + 1].map((n) => ({ input: { n, key }, options })),
      )
      await execution.step('lend', () => ledger.hold(execution.id, limits, 'lent'))
      const results = await Promise.all(children.map((handle) => handle.result()))
      await execution.step('return', () => ledger.hold(execution.id, limits, 'returned'))
      return results.reduce((a, b) => a + b)
    })
  },
)

const rated = pawl.queue('rated', { rateLimit: { limit: 6, period: '1s' }, maxDepth: 40 })
const drip = pawl.workflow('drip', { retry, queue: rated }, async (execution, n: number) => {
  await ledger.attempt(execution)
  await effect(execution, 'drop')
  return n + 1
})

const twice = pawl.workflow('twice', { retry }, async (execution, n: number) => {
  await ledger.attempt(execution)
  await effect(execution, 'double')
  return n * 2
})

/** The steps of every kind, and every kind of wait. */
const wide = pawl.workflow('wide', { retry }, async (execution, n: number) => {
  await ledger.attempt(execution)
  await effect(execution, 'first')
  const once = await effect(execution, 'at most once', { atMostOnce: true }).then(
    () => true,
    (error) => {
      if (error instanceof StepInterruptedError) return false
      throw error
    },
  )
  await execution.transaction('row', (tx) =>
    tx.query('insert into facts values ($1)', [execution.id]).then(() => true),
  )
  await execution.sleep(n % 2 ? 50 : 1200)
  const signal = await execution.signal<number>('go')
  const doubled = await (await twice.start(n)).result()
  await effect(execution, 'last')
  return { n, once, signal, doubled }
})

/** Executions that wait for each other in a circle. */
const members = async (
  execution: WorkflowExecution,
  next: string,
  of: Workflow<string, string>,
) => {
  await ledger.attempt(execution)
  await effect(execution, 'join')
  try {
    await of.handle(next).result()
    return 'followed'
  } catch (error) {
    if (error instanceof PawlError && error.code === 'deadlock') return 'broken'
    throw error
  }
}
const ring: Workflow<string, string> = pawl.workflow('ring', { retry }, (execution, next) =>
  members(execution, next, ring),
)
const tight = pawl.queue('tight', { concurrency: 2 })
const tightRing: Workflow<string, string> = pawl.workflow(
  'tight ring',
  { retry, queue: tight },
  (execution, next) => members(execution, next, tightRing),
)

const counter = pawl.object('counter', {
  retry,
  handlers: {
    add: async (execution, { key }: { key: string }) => {
      await ledger.attempt(execution)
      const limits = { queue: 'counter', concurrency: 1_000_000, key, perKey: 1 }
      return holding(execution, limits, async () => {
        const value = ((await execution.state.get<number>('value')) ?? 0) + 1
        await effect(execution, 'count')
        await execution.state.set('value', value)
        return value
      })
    },
  },
})

/** Two of its keys, each of which waits for the other, which is held by the call that waits. */
const peer = pawl.object('peer', {
  retry,
  handlers: {
    meet: async (execution, other: string): Promise<string> => {
      await ledger.attempt(execution)
      await effect(execution, 'join')
      await execution.sleep(100)
      try {
        return await peer.of(other).nod(execution.objectKey)
      } catch (error) {
        if (error instanceof PawlError && error.code === 'deadlock') return 'broken'
        throw error
      }
    },
    nod: async (execution, _from: string) => {
      await ledger.attempt(execution)
      await effect(execution, 'nod')
      return 'followed'
    },
  },
})

/** One operation of a client. */
export interface Operation {
  op: keyof typeof operations
  /** Names the operation, and what it starts. */
  id: string
  n: number
  key?: string
  priority?: number
  delay?: number
  target?: string
  ring?: string[]
}

const operations = {
  async job({ id, n, key = '', priority = 0, delay = 0 }: Operation) {
    const options = { key: id, queueKey: key, priority, delay }
    return (await job.start({ n, key }, options)).id
  },
  async parent({ id, n, key = '' }: Operation) {
    return (await parent.start({ n, key }, { key: id, queueKey: key })).id
  },
  async drip({ id, n }: Operation) {
    try {
      return (await drip.start(n, { key: id })).id
    } catch (error) {
      if (error instanceof PawlError && error.code === 'limit-exceeded') return 'refused'
      throw error
    }
  },
  async wide({ id, n }: Operation) {
    return (await wide.start(n, { key: id })).id
  },
  async signal({ id, n, target = '' }: Operation) {
    await pawl.signal(wide.handle(target).id, 'go', n, { id }).catch((error) => {
      // It has arrived, and nobody learned of it: the workflow has ended with it.
      if (error instanceof PawlError && error.code === 'execution-missing') return
      throw error
    })
  },
  async cancel({ target = '' }: Operation) {
    await job.handle(target).cancel()
  },
  async ring({ ring: keys = [] }: Operation) {
    return startRing(ring, keys)
  },
  async tightRing({ ring: keys = [] }: Operation) {
    return startRing(tightRing, keys)
  },
  async peers({ ring: keys = [] }: Operation) {
    const calls = keys.map((key, n) =>
      peer.of(key).start('meet', keys[1 - n] as string, { key: `meet ${key}` }),
    )
    return (await Promise.all(calls)).map(({ id }) => id)
  },
  async cancelParent({ target = '' }: Operation) {
    await parent.handle(target).cancel()
  },
  async count({ id, key = '' }: Operation) {
    return counter.of(key).add({ key }, { key: id })
  },
  /** Starts a job in a transaction of the app, which one time in four is rolled back. */
  async order({ id, n, key = '' }: Operation, execution: Execution) {
    const options = { key: id, queueKey: key }
    try {
      return await execution.transaction('order', async (tx) => {
        await tx.query('insert into orders values ($1)', [id])
        const { id: started } = await job.start({ n, key }, { ...options, tx })
        if (n % 4 === 0) throw new RollBack()
        return started
      })
    } catch (error) {
      if (error instanceof RollBack) return 'rolled back'
      throw error
    }
  },
}

class RollBack extends Error {}

async function startRing(of: typeof ring, keys: readonly string[]): Promise<string[]> {
  const starts = keys.map((key, n) => ({
    input: keys[(n + 1) % keys.length] as string,
    options: { key },
  }))
  return (await of.startMany(starts)).map(({ id }) => id)
}

async function handle(req: Request, res: Response): Promise<void> {
  const execution = req.execution as Execution
  const operation = req.body as Operation
  await ledger.attempt(execution)
  const nonce = await effect(execution, 'received')
  await execution.step('charge', () => ledger.effect(execution, 'charge'))
  const result = await operations[operation.op](operation, execution)
  if (operation.n % 3 === 0) await pause(30)
  res.status(201).json({ id: operation.id, nonce, result: result ?? null })
}

await pawl.start()
const app = express()
app.use(express.json())
const keyed = { wait: '1s', timeout: '30s', scope: () => 'chaos' } as const
app.post('/op', idempotency(pawl, { ...keyed, resumable: true }), handle)
app.post('/recovered', idempotency(pawl, { ...keyed, recover: true }), handle)
pawl.recoverRequests(app)
serveUntilTerminated(app, pawl, pool)
