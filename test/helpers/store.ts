import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { executionId } from '../../lib/engine/execution-id.ts'
import type { Database } from '../../lib/store/database/database.ts'
import { NodePostgres } from '../../lib/store/database/node-postgres.ts'
import {
  type AttemptRef,
  type Claim,
  ExecutionStore,
  type StoredExecution,
} from '../../lib/store/execution-store.ts'
import { processStatements } from '../../lib/store/sql/process-statements.ts'
import type { NewExecution } from '../../lib/store/workflow-store.ts'
import { afterEachTest } from './cleanup.ts'
import { appPool } from './database.ts'
import { freshKey } from './request.ts'

/** A store as a process of its own would have it. */
export interface TestStore {
  store: ExecutionStore
  db: Database
  /** The id of the process. */
  owner: string
  /** Makes the process alive for this long, or dead (0). */
  live(timeoutMs: number): Promise<void>
}

const pools: pg.Pool[] = []

/**
 * Opens a store. Its process counts as alive.
 * @param url a test database's stands for the pool that the file's apps share; any other gets a pool of its
 * own, closed after the test
 */
export async function openStore(url: string, alive = true): Promise<TestStore> {
  let pool = appPool(url)
  if (!pool) {
    pool = new pg.Pool({ connectionString: url, max: 5 })
    pools.push(pool)
  }
  return storeOver(new NodePostgres(pool, 30_000, false), alive)
}

/** A store over any database. */
export async function storeOver(db: Database, alive = true): Promise<TestStore> {
  const owner = randomUUID()
  const live = async (timeoutMs: number) => {
    await db.query(processStatements('"pawl"').register, [
      owner,
      null,
      'host',
      1,
      '0',
      timeoutMs,
      '{}',
    ])
  }
  if (alive) await live(60_000)
  return { store: new ExecutionStore(db, 'pawl', owner, 15_000), db, owner, live }
}

afterEachTest(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.end()))
})

export function claimOf(key: string = freshKey(), other: Partial<Claim> = {}): Claim {
  return {
    id: executionId('', key),
    scope: '',
    key,
    name: 'POST /orders',
    fingerprint: Buffer.from([1, 2, 3]),
    retentionMs: 60_000,
    recovery: null,
    ...other,
  }
}

/** A workflow's execution to be created. */
export function newExecution(other: Partial<NewExecution> = {}): NewExecution {
  const key = freshKey()
  return {
    ...{ id: executionId('workflow', key), scope: '', key, kind: 'workflow', name: 'work' },
    ...{ version: null, fingerprint: Buffer.from([1]), input: Buffer.from('1') },
    ...{ parent: null, parentIncarnation: null },
    ...{ queue: null, lane: null, handler: 'workflow work', maxAttempts: 5, priority: 0 },
    ...{ delayMs: 0, timeoutMs: null, runsHere: false },
    ...other,
  }
}

/** Claims what nobody else has claimed. */
export async function claimNew({ store }: TestStore, claim: Claim): Promise<AttemptRef> {
  const result = await store.claim(claim)
  if ('claimed' in result) return result.claimed
  throw new Error(`${claim.key} was claimed before`)
}

/** Looks at what is there. */
export async function lookAt({ store }: TestStore, id: string): Promise<StoredExecution> {
  const found = await store.read(id)
  if (found) return found
  throw new Error(`${id} is not there`)
}

export function completionOf(attempt: AttemptRef, body: string, onlyIfCurrent = false) {
  return {
    ...attempt,
    outcome: { status: 200, headers: Buffer.from('[]'), body: Buffer.from(body) },
    retentionMs: 60_000,
    onlyIfCurrent,
  }
}

export function shuffled<T>(items: readonly T[]): T[] {
  const result = [...items]
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[result[i], result[j]] = [result[j] as T, result[i] as T]
  }
  return result
}
