/** Reads and writes rows of executions: claim, take over, complete, release. */

import { toBuffer, toBufferOrNull } from './database/buffers.ts'
import type { Database, Row } from './database/database.ts'
import { column, PgArray } from './database/pg-array.ts'
import { withStoreErrors } from './database/store-errors.ts'
import { GroupCommit } from './group-commit.ts'
import { type Advance, toAdvance } from './queue-store.ts'
import { type ExecutionStatements, executionStatements } from './sql/execution-statements.ts'
import { StoredBodies } from './stored-bodies.ts'

/** How an execution ended: its response, result or error. Written once, never changed. */
export interface Outcome {
  status: number
  /** JSON in UTF-8. */
  headers: Buffer
  /** Null: the body was not stored. */
  body: Buffer | null
}

/** A keyed request, a workflow, or a call of an object's handler. */
export type ExecutionKind = 'request' | 'workflow' | 'object'

/** Identifies one attempt at an execution; every write carries it. */
export interface AttemptRef {
  id: string
  /**
   * The creation time of the execution, which tells it from earlier and later executions under its key. An
   * opaque string.
   */
  incarnation: string
  attempt: number
  /** Whether it has a place in a queue, which its end frees. Default false. */
  isQueued?: boolean | undefined
}

/** A request to create an execution and run its first attempt. */
export interface Claim {
  id: string
  scope: string
  key: string
  name: string
  fingerprint: Buffer
  /** How long the execution is kept if it never completes, in ms. */
  retentionMs: number
  /** What workers need to resume the execution; null if workers must not resume it. */
  recovery: Recovery | null
}

/** What workers need to resume an execution without its caller. */
export interface Recovery {
  /** The encoded input: the stored request. */
  input: Buffer
  /** Workers park the execution after this many attempts. */
  maxAttempts: number
}

/** An execution's row, as stored. */
export interface StoredExecution {
  status: 'running' | 'waiting' | 'released' | 'unknown' | 'parked' | 'done'
  fingerprint: Buffer
  owner: string | null
  /** Whether the owner's heartbeat is current. */
  ownerAlive: boolean
  attempt: number
  incarnation: string
  expired: boolean
  /** Whether the journal has a step. Always false for a done execution. */
  hasSteps: boolean
  /** Null unless the execution is done. `largeBody`: see {@link StoredBodies}. */
  outcome: (Outcome & { largeBody?: number }) | null
}

/** The attempt of a new execution, or the existing execution; `found` is null if it was deleted meanwhile. */
export type ClaimResult = { claimed: AttemptRef } | { found: StoredExecution | null }

/** An outcome to be recorded. */
export interface Completion extends AttemptRef {
  outcome: Outcome
  retentionMs: number
  /** Whether only the current attempt may record it: true for a failure. */
  onlyIfCurrent: boolean
}

/** `stored`; or the execution as it is, if it was done already or superseded; null if it does not exist. */
export type CompletionResult = { kind: 'stored' } | { kind: 'found'; found: StoredExecution | null }

/** Options of `release`. */
export interface ReleaseOptions {
  /** The encoded error that ended the attempt, for people. Default none. */
  error?: Buffer | null
  /** When workers resume the execution, in ms from now. Default: exponential backoff. */
  delayMs?: number
  /** Whether the attempt counts towards the maximum. Default true. */
  countsAsAttempt?: boolean
}

/** The status after a release: free to resume; effects unknown; or given up by workers. */
export type ReleaseStatus = 'released' | 'unknown' | 'parked'

interface Release extends AttemptRef, ReleaseOptions {
  status: ReleaseStatus
}

/** The payload of the notification that tells workers that an execution is due. */
export const WORK_DUE = 'due'

/** Reads and writes executions. Frequent operations of concurrent requests are batched into one statement. */
export class ExecutionStore {
  /** Called when an execution has ended in this process and left its queue. */
  onAdvance: (advance: Advance) => void = () => {}
  /** Called when an execution has ended in this process and others that waited for it are due. */
  onWorkDue: () => void = () => {}
  readonly #db: Database
  readonly #sql: ExecutionStatements
  readonly #channel: string
  readonly #owner: string
  readonly #leaseMs: number
  readonly #claims: GroupCommit<Claim, ClaimResult>
  readonly #reads: GroupCommit<string, StoredExecution | null>
  readonly #bodies: StoredBodies
  readonly #completions: GroupCommit<Completion, boolean>
  readonly #queuedCompletions: GroupCommit<Completion, boolean>
  readonly #releases: GroupCommit<Release, boolean>
  readonly #queuedReleases: GroupCommit<Release, boolean>
  readonly #notifications: GroupCommit<string, null>

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   * @param leaseMs how long after an attempt has begun workers check whether the owner has died, in ms
   */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = executionStatements(`"${schema}"`)
    this.#channel = schema
    this.#owner = owner
    this.#leaseMs = leaseMs
    const { timeoutMs } = db
    this.#claims = new GroupCommit((batch, lockMs) => this.#claim(batch, lockMs), timeoutMs, {
      sizeOf: ({ recovery }) => recovery?.input.length ?? 0,
    })
    this.#reads = new GroupCommit((batch) => this.#read(batch), timeoutMs)
    this.#bodies = new StoredBodies(db, this.#sql.readBodies)
    const completions = (sql: string) =>
      new GroupCommit<Completion, boolean>(
        (batch, lockMs) => this.#complete(sql, batch, lockMs),
        timeoutMs,
        { sizeOf: ({ outcome }) => outcome.headers.length + (outcome.body?.length ?? 0) },
      )
    this.#completions = completions(this.#sql.complete)
    this.#queuedCompletions = completions(this.#sql.completeQueued)
    const releases = (sql: string) =>
      new GroupCommit<Release, boolean>(
        (batch, lockMs) => this.#release(sql, batch, lockMs),
        timeoutMs,
      )
    this.#releases = releases(this.#sql.release)
    this.#queuedReleases = releases(this.#sql.releaseQueued)
    this.#notifications = new GroupCommit((batch) => this.#sendNotifications(batch), timeoutMs)
  }

  /**
   * Creates an execution and its first attempt, or returns the execution that exists.
   * @param withinMs how long it may take, in ms. Default: the database's timeout
   */
  async claim(claim: Claim, withinMs?: number): Promise<ClaimResult> {
    const result = await withStoreErrors(this.#claims.run(claim, withinMs))
    if ('claimed' in result) return result
    if (result.found) return { found: await this.#bodies.addTo(claim.id, result.found) }
    // The concurrent insert that won has committed after this statement's snapshot: a new statement sees it.
    return { found: await this.read(claim.id) }
  }

  /** Reads an execution; null if there is none. */
  async read(id: string): Promise<StoredExecution | null> {
    return this.#bodies.addTo(id, await withStoreErrors(this.#reads.run(id)))
  }

  /** Begins a new attempt at an execution whose last attempt has ended; null if it has changed since `seen`. */
  async takeOver(id: string, seen: StoredExecution): Promise<AttemptRef | null> {
    const values = [id, seen.incarnation, seen.attempt, this.#owner, this.#leaseMs]
    return toAttemptRef(id, await this.#query(this.#sql.takeOver, values))
  }

  /** Replaces an expired execution with a new one; null if it has changed since `seen`. */
  async restartExpired(claim: Claim, seen: StoredExecution): Promise<AttemptRef | null> {
    const { id, name, fingerprint, recovery, retentionMs } = claim
    const bytes = new PgArray('bytea', [fingerprint, recovery?.input ?? null])
    const values = [
      id,
      seen.incarnation,
      seen.attempt,
      this.#owner,
      name,
      bytes,
      retentionMs,
      this.#leaseMs,
      recovery?.maxAttempts ?? 0,
    ]
    return toAttemptRef(id, await this.#query(this.#sql.restartExpired, values))
  }

  /** Records the outcome, unless the execution has one. */
  async complete(completion: Completion): Promise<CompletionResult> {
    const lane = completion.isQueued ? this.#queuedCompletions : this.#completions
    if (await withStoreErrors(lane.run(completion))) return { kind: 'stored' }
    const found = await this.read(completion.id)
    // A row of another incarnation is another execution.
    return { kind: 'found', found: found?.incarnation === completion.incarnation ? found : null }
  }

  /**
   * Ends an attempt without an outcome, so that the execution can be resumed.
   * @returns false if the attempt is not the current one; then nothing changes
   */
  release(
    attempt: AttemptRef,
    status: ReleaseStatus,
    ending: ReleaseOptions = {},
  ): Promise<boolean> {
    const lane = attempt.isQueued ? this.#queuedReleases : this.#releases
    return withStoreErrors(lane.run({ ...attempt, ...ending, status }))
  }

  /** Deletes an execution whose claim may have been committed although the reply was lost. Its handler never ran. */
  async undoClaim(id: string, attempt: number): Promise<void> {
    await this.#query(this.#sql.undoClaim, [id, this.#owner, attempt])
  }

  /** Sets the flag that makes the execution's end send a notification. */
  async markAwaited(id: string): Promise<void> {
    await this.#query(this.#sql.markAwaited, [id])
  }

  /** Releases a stuck execution, so that it can be resumed; false if it is running, done or does not exist. */
  async releaseStuck(id: string): Promise<boolean> {
    const rows = await this.#query(this.#sql.releaseStuck, [id])
    return rows.length > 0
  }

  async #query(sql: string, values: (string | number | PgArray)[]): Promise<Row[]> {
    return withStoreErrors(this.#db.query(sql, values))
  }

  async #claim(batch: Claim[], lockMs: number | null): Promise<ClaimResult[]> {
    // Sorted by id, as the statement requires.
    const sorted = [...batch.keys()].sort((a, b) => (batch[a]!.id < batch[b]!.id ? -1 : 1))
    const claims = sorted.map((i) => batch[i]!)
    const rows = await this.#db.query(this.#sql.claim, [
      column('uuid', claims, (c) => c.id),
      column('text', claims, (c) => c.scope),
      column('text', claims, (c) => c.key),
      column('text', claims, (c) => c.name),
      column('bytea', claims, (c) => c.fingerprint),
      column('int8', claims, (c) => c.retentionMs),
      column('bytea', claims, (c) => c.recovery?.input ?? null),
      column('int4', claims, (c) => c.recovery?.maxAttempts ?? 0),
      this.#owner,
      this.#leaseMs,
      lockMs,
    ])
    const results = new Array<ClaimResult>(batch.length)
    for (const [n, incarnation, ...rest] of rows) {
      const at = sorted[(n as number) - 1]!
      results[at] = incarnation
        ? { claimed: { id: batch[at]!.id, incarnation: incarnation as string, attempt: 1 } }
        : { found: toStoredExecution(rest) }
    }
    return results
  }

  async #read(batch: string[]): Promise<(StoredExecution | null)[]> {
    const rows = await this.#db.query(this.#sql.read, [new PgArray('uuid', batch)])
    const results = new Array<StoredExecution | null>(batch.length).fill(null)
    for (const [n, ...rest] of rows) results[(n as number) - 1] = toStoredExecution(rest)
    return results
  }

  async #complete(sql: string, batch: Completion[], lockMs: number | null): Promise<boolean[]> {
    // Sorted by id, the order in which `subscribeToEnd` locks, so that the two cannot deadlock.
    const order = [...batch.keys()].sort((a, b) => (batch[a]!.id < batch[b]!.id ? -1 : 1))
    const completions = order.map((i) => batch[i]!)
    const stored = this.#reportEnded(
      completions,
      await this.#db.query(sql, [
        column('uuid', completions, (c) => c.id),
        column('int8', completions, (c) => c.incarnation),
        column('int4', completions, (c) => c.attempt),
        column('bool', completions, (c) => c.onlyIfCurrent),
        column('int2', completions, (c) => c.outcome.status),
        column('bytea', completions, (c) => c.outcome.headers),
        column('bytea', completions, (c) => c.outcome.body),
        column('int8', completions, (c) => c.retentionMs),
        this.#owner,
        lockMs,
      ]),
    )
    const results = new Array<boolean>(batch.length)
    order.forEach((i, at) => {
      results[i] = stored[at]!
    })
    return results
  }

  async #release(sql: string, batch: Release[], lockMs: number | null): Promise<boolean[]> {
    return this.#reportEnded(
      batch,
      await this.#db.query(sql, [
        column('uuid', batch, (r) => r.id),
        column('int8', batch, (r) => r.incarnation),
        column('int4', batch, (r) => r.attempt),
        column('text', batch, (r) => r.status),
        this.#owner,
        column('bytea', batch, (r) => r.error ?? null),
        column('int8', batch, (r) => r.delayMs ?? null),
        column('bool', batch, (r) => r.countsAsAttempt ?? true),
        lockMs,
      ]),
    )
  }

  /** Notifies the processes and workers that wait for the batch. @returns which operations took effect */
  #reportEnded(batch: AttemptRef[], rows: Row[]): boolean[] {
    const results = new Array<boolean>(batch.length).fill(false)
    const awaited: string[] = []
    for (const [n, isAwaited, hasWaiters, ...advance] of rows) {
      if (n === null) {
        this.onAdvance(toAdvance(advance))
        continue
      }
      const at = (n as number) - 1
      results[at] = true
      if (isAwaited) awaited.push(batch[at]!.id)
      if (hasWaiters) awaited.push(WORK_DUE)
    }
    this.notify(awaited)
    if (awaited.includes(WORK_DUE)) this.onWorkDue()
    return results
  }

  /**
   * Notifies the processes that wait for these executions, or for due work (WORK_DUE). In a statement of its
   * own, after the commit: committing a notification takes a lock that all notifying transactions of the
   * cluster share. If the notification is lost, polling finds the change.
   */
  async notify(ids: readonly string[]): Promise<void> {
    await Promise.allSettled([...new Set(ids)].map((id) => this.#notifications.run(id)))
  }

  async #sendNotifications(batch: string[]): Promise<null[]> {
    const ids = new PgArray('text', [...new Set(batch)])
    await this.#db.query(this.#sql.notify, [this.#channel, ids])
    return batch.map(() => null)
  }
}

function toAttemptRef(id: string, rows: Row[]): AttemptRef | null {
  const row = rows[0]
  return row ? { id, attempt: row[0] as number, incarnation: row[1] as string } : null
}

function toStoredExecution(row: readonly unknown[]): StoredExecution | null {
  const [
    status,
    fingerprint,
    owner,
    attempt,
    incarnation,
    expired,
    ownerAlive,
    journaled,
    ...outcome
  ] = row
  if (status === null) return null
  const running = status === 'running' && ownerAlive === true
  return {
    status: status as StoredExecution['status'],
    fingerprint: toBuffer(fingerprint as Uint8Array),
    owner: owner as string | null,
    ownerAlive: ownerAlive as boolean,
    attempt: attempt as number,
    incarnation: incarnation as string,
    // An execution that a live process is running does not expire.
    expired: (expired as boolean) && !running,
    hasSteps: journaled === true,
    outcome:
      status === 'done'
        ? {
            status: outcome[0] as number,
            headers: toBuffer(outcome[1] as Uint8Array),
            body: toBufferOrNull(outcome[2]),
            ...(outcome[2] === null && outcome[3] !== null && { largeBody: outcome[3] as number }),
          }
        : null,
  }
}
