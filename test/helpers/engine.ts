import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import type { Attempt } from '../../lib/engine/attempt.ts'
import type { BeginOptions, BeginResult } from '../../lib/engine/begin-options.ts'
import { Engine } from '../../lib/engine/engine.ts'
import { executionId } from '../../lib/engine/execution-id.ts'
import { type EncryptionKey, Encryptor } from '../../lib/engine/values/encryptor.ts'
import type { Logger } from '../../lib/options/logger.ts'
import { ChangeListener, type PollingIntervals } from '../../lib/store/change-listener.ts'
import type { Database } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import { ExecutionStore } from '../../lib/store/execution-store.ts'
import { Heartbeat } from '../../lib/store/heartbeat.ts'
import { StepStore } from '../../lib/store/step-store.ts'
import { silent } from './app.ts'
import { afterEachTest } from './cleanup.ts'
import { freshKey } from './request.ts'

/** What may happen to a statement. */
export type Fault = (
  sql: string,
) => 'lose the reply' | 'lose the statement' | Promise<void> | undefined

export interface ProcessOptions {
  fault?: Fault
  storeTimeoutMs?: number
  keys?: EncryptionKey[]
  logger?: Logger
  polling?: PollingIntervals
}

/** An engine as a process of its own would have it. */
export interface TestProcess {
  /** The id of the process. */
  id: string
  engine: Engine
  steps: StepStore
  heartbeat: Heartbeat
  /** Every statement that it has sent. */
  statements: string[]
  /** Ends the process as a crash would: its executions are interrupted, and it writes on as a zombie. */
  die(): Promise<void>
  stop(): Promise<void>
}

const running = new Set<TestProcess>()

afterEachTest(async () => {
  await Promise.all([...running].map((process) => process.stop()))
})

/** Starts an engine over a pool; it ends with the test. */
export async function startProcess(
  pool: pg.Pool,
  { fault, storeTimeoutMs = 10_000, keys = [], logger = silent, polling }: ProcessOptions = {},
): Promise<TestProcess> {
  const postgres = new NodePostgres(pool, 10_000, false)
  const statements: string[] = []
  const db: Database = {
    query: async (sql, values) => {
      statements.push(sql)
      const what = fault?.(sql)
      if (what === 'lose the statement') throw new Error('Connection terminated unexpectedly')
      if (what instanceof Promise) await what
      const rows = await postgres.query(sql, values)
      if (what === 'lose the reply') throw new Error('Connection terminated unexpectedly')
      return rows
    },
    urgent: postgres.urgent,
    timeoutMs: postgres.timeoutMs,
    connections: postgres.connections,
    host: postgres.host,
    transaction: (work) => postgres.transaction(work),
    session: (...args) => postgres.session(...args),
    listen: (...args) => postgres.listen(...args),
    close: async () => {},
  }
  const id = randomUUID()
  const name = { id, instance: null, version: 'test', timeoutMs: 60_000 }
  const heartbeat = new Heartbeat(db, 'pawl', name, silent)
  await heartbeat.start()
  statements.length = 0
  const watch = new ChangeListener(db, 'pawl', polling)
  const steps = new StepStore(db, 'pawl', id)
  const engine = new Engine({
    store: new ExecutionStore(db, 'pawl', id, 15_000),
    steps,
    watch,
    encryptor: new Encryptor(keys),
    owner: id,
    storeTimeoutMs,
    limits: { step: 1024 ** 2, steps: 10_000 },
    logger,
  })
  const process: TestProcess = {
    id,
    engine,
    steps,
    heartbeat,
    statements,
    die: () => heartbeat.stop(),
    async stop() {
      running.delete(process)
      await watch.close()
      await heartbeat.stop()
    },
  }
  running.add(process)
  return process
}

type CallOptions = Partial<Omit<BeginOptions, 'claim'>> & { print?: Buffer; retentionMs?: number }

/** A call as a keyed request makes it. */
export function call(key: string, options: CallOptions = {}): BeginOptions {
  const { print = Buffer.alloc(33, 1), retentionMs = 60_000, ...rest } = options
  const claim = {
    id: executionId('test', key),
    scope: 'test',
    key,
    name: 'POST /',
    fingerprint: print,
    retentionMs,
    recovery: null,
  }
  return { claim, resumable: false, waitMs: 0, ...rest }
}

export function attemptOf(begun: BeginResult): Attempt {
  if (begun.kind !== 'run') throw new Error(`expected to run, not ${begun.kind}`)
  return begun.attempt
}

/** Begins an attempt that may resume what is there. */
export async function begin(process: TestProcess, key: string = freshKey(), options?: CallOptions) {
  const attempt = attemptOf(await process.engine.begin(call(key, { resumable: true, ...options })))
  return { key, attempt, execution: attempt.execution }
}

/** Gives an attempt back, as a handler that answered 5xx does, and begins the next one. */
export async function next(
  process: TestProcess,
  { key, attempt }: { key: string; attempt: Attempt },
) {
  await attempt.release('released')
  return begin(process, key)
}

/** An attempt of `zombie` that has been taken over by one of `heir`, and does not know it. */
export async function takenOver(
  zombie: TestProcess,
  heir: TestProcess,
  before: (stale: Awaited<ReturnType<typeof begin>>) => unknown = () => {},
) {
  const stale = await begin(zombie)
  await before(stale)
  await zombie.die()
  return { stale, current: await begin(heir, stale.key) }
}

export const outcome = (text: string, status = 200) => ({
  status,
  headers: Buffer.from('[]'),
  body: Buffer.from(text),
})

/** The journal of the execution of this key, as the SQL view shows it. */
export async function journalOf(pool: pg.Pool, key: string) {
  const sql = 'select * from pawl.step_log where key = $1 order by position, name, occurrence'
  return (await pool.query(sql, [key])).rows
}
