import type { Database, Row } from './database/database.ts'
import { toBuffer, toBytes, translate } from './database/store-errors.ts'
import { column, PgArray } from './database/pg-array.ts'
import { GroupCommit } from './group-commit.ts'
import { type Statements, statements } from './sql/execution-statements.ts'

/** What an execution answered; written once, never changed. */
export interface Outcome {
  status: number
  /** JSON in UTF-8. */
  headers: Buffer
  /** Null: not kept. */
  body: Buffer | null
}

/** What an execution is: a keyed request, a workflow, or a call of an object's handler. */
export type ExecutionKind = 'request' | 'workflow' | 'object'

/** One attempt at an execution, as every write names it. */
export interface AttemptRef {
  id: string
  /** Names one life of the execution: opaque, from the claim. */
  born: string
  attempt: number
}

export interface Claim {
  id: string
  scope: string
  key: string
  name: string
  fingerprint: Buffer
  /** How long the execution is kept if it is never completed, in ms. */
  retentionMs: number
  /** What workers need to go on with it; null if none shall. */
  recovery: Recovery | null
}

/** What is stored of an execution that goes on without its caller. */
export interface Recovery {
  /** What it is asked. */
  input: Buffer
  /** After how many attempts workers give up. */
  attempts: number
}

/** What the database knows of an execution. */
export interface Found {
  status: 'running' | 'waiting' | 'released' | 'unknown' | 'parked' | 'done'
  fingerprint: Buffer
  owner: string | null
  /** Whether the owner's heartbeat is current. */
  ownerAlive: boolean
  attempt: number
  born: string
  expired: boolean
  /** Whether a step is recorded; of an execution that is not done. */
  journaled: boolean
  /** Of a done execution. */
  outcome: Outcome | null
}

export type Claimed = { claimed: AttemptRef } | { found: Found | null }

export interface Completion extends AttemptRef {
  outcome: Outcome
  retentionMs: number
  /** A failure counts only if this attempt is the current one. */
  onlyIfCurrent: boolean
}

/** An execution's status after a completion that found it done, or that came too late. */
export type Completed = { kind: 'stored' } | { kind: 'found'; found: Found | null }

/** How an attempt ends that gives its execution back without an outcome. */
export interface Ending {
  /** Why, for people: an encoded error. Default: nothing to tell. */
  error?: Buffer | null
  /** When workers go on with it, in ms from now. Default: later with each attempt. */
  delayMs?: number
  /** Whether it counts as an attempt. Default true. */
  counts?: boolean
}

/** Free to take, open what it did, or given up by workers. */
export type Unfinished = 'released' | 'unknown' | 'parked'

interface Release extends AttemptRef, Ending {
  status: Unfinished
}

/** A lane of a queue in which a slot became free. */
export interface Lane {
  queue: string
  lane: string | null
}

/** The payload of the notification that something is due. */
export const DUE = 'due'

/** Everything the engine asks of Postgres. Hot operations of concurrent requests share statements. */
export class Store {
  /** Called when an execution that was under a queue's limits has ended here. */
  onFree: (lane: Lane) => void = () => {}
  /** Called when what has ended here was slept for, and somebody is to go on. */
  onDue: () => void = () => {}
  readonly #db: Database
  readonly #sql: Statements
  readonly #channel: string
  readonly #owner: string
  readonly #leaseMs: number
  readonly #claims = new GroupCommit<Claim, Claimed>((batch) => this.#claim(batch), {
    weigh: ({ recovery }) => recovery?.input.length ?? 0,
  })
  readonly #looks = new GroupCommit<string, Found | null>((batch) => this.#look(batch))
  readonly #completions = new GroupCommit<Completion, boolean>((batch) => this.#complete(batch), {
    weigh: ({ outcome }) => outcome.headers.length + (outcome.body?.length ?? 0),
  })
  readonly #releases = new GroupCommit<Release, boolean>((batch) => this.#release(batch))
  readonly #news = new GroupCommit<string, null>((batch) => this.#tell(batch))

  /**
   * @param schema the schema's name, as given by the user
   * @param owner the id of this process
   * @param leaseMs after how long workers look whether an execution's owner has died, in ms
   */
  constructor(db: Database, schema: string, owner: string, leaseMs: number) {
    this.#db = db
    this.#sql = statements(`"${schema}"`)
    this.#channel = schema
    this.#owner = owner
    this.#leaseMs = leaseMs
  }

  /** Claims a new execution, or finds the one that is there. `null` if it vanished in between. */
  async claim(claim: Claim): Promise<Claimed> {
    const result = await translate(this.#claims.run(claim))
    if ('claimed' in result || result.found) return result
    // The winner of the insert committed after our snapshot was taken: only now can it be seen.
    return { found: await this.look(claim.id) }
  }

  look(id: string): Promise<Found | null> {
    return translate(this.#looks.run(id))
  }

  /** Takes over an execution whose last attempt has ended; null if somebody was faster. */
  async takeOver(id: string, seen: Found): Promise<AttemptRef | null> {
    const values = [id, seen.born, seen.attempt, this.#owner]
    return ref(id, await this.#query(this.#sql.takeOver, values))
  }

  /** Makes an expired execution a new one; null if somebody was faster. */
  async restart(claim: Claim, seen: Found): Promise<AttemptRef | null> {
    const { id, name, fingerprint, recovery, retentionMs } = claim
    const bytes = new PgArray('bytea', [fingerprint, recovery?.input ?? null])
    const values = [
      id,
      seen.born,
      seen.attempt,
      this.#owner,
      name,
      bytes,
      retentionMs,
      this.#leaseMs,
      recovery?.attempts ?? 0,
    ]
    return ref(id, await this.#query(this.#sql.restart, values))
  }

  /** Records the outcome, unless there is one. */
  async complete(completion: Completion): Promise<Completed> {
    if (await translate(this.#completions.run(completion))) return { kind: 'stored' }
    const found = await this.look(completion.id)
    // A row of another life has nothing to do with this attempt.
    return { kind: 'found', found: found?.born === completion.born ? found : null }
  }

  /**
   * Gives an execution back without an outcome, if this attempt is still the current one.
   * @returns whether it was
   */
  release(attempt: AttemptRef, status: Unfinished, ending: Ending = {}): Promise<boolean> {
    return translate(this.#releases.run({ ...attempt, ...ending, status }))
  }

  /** Undoes a claim whose reply was lost: the execution's handler never ran. */
  async disown(id: string, attempt: number): Promise<void> {
    await this.#query(this.#sql.disown, [id, this.#owner, attempt])
  }

  /** Asks whoever completes the execution to notify. */
  async await(id: string): Promise<void> {
    await this.#query(this.#sql.await, [id])
  }

  /** Makes an execution that is stuck free to take; false if it is running, done or not there. */
  async free(id: string): Promise<boolean> {
    const rows = await this.#query(this.#sql.free, [id])
    return rows.length > 0
  }

  async #query(sql: string, values: (string | number | PgArray)[]): Promise<Row[]> {
    return translate(this.#db.query(sql, values))
  }

  async #claim(batch: Claim[]): Promise<Claimed[]> {
    // In the order of their ids, as the statement promises.
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
      column('int4', claims, (c) => c.recovery?.attempts ?? 0),
      this.#owner,
      this.#leaseMs,
    ])
    const results = new Array<Claimed>(batch.length)
    for (const [n, born, ...rest] of rows) {
      const at = sorted[(n as number) - 1]!
      results[at] = born
        ? { claimed: { id: batch[at]!.id, born: born as string, attempt: 1 } }
        : { found: toFound(rest) }
    }
    return results
  }

  async #look(batch: string[]): Promise<(Found | null)[]> {
    const rows = await this.#db.query(this.#sql.look, [new PgArray('uuid', batch)])
    const results = new Array<Found | null>(batch.length).fill(null)
    for (const [n, ...rest] of rows) results[(n as number) - 1] = toFound(rest)
    return results
  }

  async #complete(batch: Completion[]): Promise<boolean[]> {
    // In the order of their ids, as whoever subscribes to many.
    const order = [...batch.keys()].sort((a, b) => (batch[a]!.id < batch[b]!.id ? -1 : 1))
    const completions = order.map((i) => batch[i]!)
    const settled = this.#settled(
      completions,
      await this.#db.query(this.#sql.complete, [
        column('uuid', completions, (c) => c.id),
        column('int8', completions, (c) => c.born),
        column('int4', completions, (c) => c.attempt),
        column('bool', completions, (c) => c.onlyIfCurrent),
        column('int2', completions, (c) => c.outcome.status),
        column('bytea', completions, (c) => c.outcome.headers),
        column('bytea', completions, (c) => c.outcome.body),
        column('int8', completions, (c) => c.retentionMs),
        this.#owner,
      ]),
    )
    const results = new Array<boolean>(batch.length)
    order.forEach((i, at) => {
      results[i] = settled[at]!
    })
    return results
  }

  async #release(batch: Release[]): Promise<boolean[]> {
    return this.#settled(
      batch,
      await this.#db.query(this.#sql.release, [
        column('uuid', batch, (r) => r.id),
        column('int8', batch, (r) => r.born),
        column('int4', batch, (r) => r.attempt),
        column('text', batch, (r) => r.status),
        this.#owner,
        column('bytea', batch, (r) => r.error ?? null),
        column('int8', batch, (r) => r.delayMs ?? null),
        column('bool', batch, (r) => r.counts ?? true),
      ]),
    )
  }

  /** Which operations of a batch took effect; tells the processes that wait for them. */
  #settled(batch: AttemptRef[], rows: Row[]): boolean[] {
    const results = new Array<boolean>(batch.length).fill(false)
    const awaited: string[] = []
    for (const [n, isAwaited, queue, lane, wakes] of rows) {
      const at = (n as number) - 1
      results[at] = true
      if (isAwaited) awaited.push(batch[at]!.id)
      if (wakes) awaited.push(DUE)
      if (queue) this.onFree({ queue: queue as string, lane: lane as string | null })
    }
    this.notify(awaited)
    if (awaited.includes(DUE)) this.onDue()
    return results
  }

  /**
   * Tells the processes that wait for these executions (or for work: DUE) that there is news. In a
   * statement of its own, after the commit: committing a notification takes a lock that all notifying
   * transactions of the cluster share. If this one is lost, polling finds the news.
   */
  async notify(ids: readonly string[]): Promise<void> {
    await Promise.allSettled([...new Set(ids)].map((id) => this.#news.run(id)))
  }

  async #tell(batch: string[]): Promise<null[]> {
    const ids = new PgArray('text', [...new Set(batch)])
    await this.#db.query(this.#sql.notify, [this.#channel, ids])
    return batch.map(() => null)
  }
}

function ref(id: string, rows: Row[]): AttemptRef | null {
  const row = rows[0]
  return row ? { id, attempt: row[0] as number, born: row[1] as string } : null
}

function toFound(row: readonly unknown[]): Found | null {
  const [status, fingerprint, owner, attempt, born, expired, ownerAlive, journaled, ...outcome] =
    row
  if (status === null) return null
  const running = status === 'running' && ownerAlive === true
  return {
    status: status as Found['status'],
    fingerprint: toBuffer(fingerprint as Uint8Array),
    owner: owner as string | null,
    ownerAlive: ownerAlive as boolean,
    attempt: attempt as number,
    born: born as string,
    // What a live process is working on does not expire under its hands.
    expired: (expired as boolean) && !running,
    journaled: journaled === true,
    outcome:
      status === 'done'
        ? {
            status: outcome[0] as number,
            headers: toBuffer(outcome[1] as Uint8Array),
            body: toBytes(outcome[2]),
          }
        : null,
  }
}
