/** Decides which process runs an execution: claims it, resumes it, or waits for the process that runs it. */

import { PawlError, type PawlErrorCode } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import type { ChangeListener } from '../store/change-listener.ts'
import { statementEnded } from '../store/database/statement-error.ts'
import type {
  AttemptRef,
  ExecutionStore,
  ReleaseOptions,
  StoredExecution,
} from '../store/execution-store.ts'
import type { JournalEntry, StepStore } from '../store/step-store.ts'
import type { LeasedExecution } from '../store/wakeup-store.ts'
import { Attempt, type AttemptDependencies, type AttemptOptions } from './attempt.ts'
import { attemptOptionsOf, type BeginOptions, type BeginResult, stopping } from './begin-options.ts'
import { type Decision, decide } from './decision.ts'
import { JournalMemory, memoryPauseMs } from './journal/journal-memory.ts'
import type { JournalLimits } from './limits.ts'
import {
  deadlineAfter,
  retryWhileUnavailable,
  retryWhileUnavailableFor,
} from './retry/retry-while-unavailable.ts'
import { withTimeout } from './retry/with-timeout.ts'
import type { Encryptor } from './values/encryptor.ts'

export interface EngineDependencies {
  store: ExecutionStore
  steps: StepStore
  watch: ChangeListener
  encryptor: Encryptor
  /** The id of this process. */
  owner: string
  /** How long a call retries while the database is unavailable, in ms. */
  storeTimeoutMs: number
  limits: JournalLimits
  logger: Logger
}

/** Errors after which the execution may be claimed in the database although this process does not run it. */
const UNCERTAIN_CODES = new Set<PawlErrorCode>(['store-unavailable', 'stopping'])

/** The release of an attempt whose code has not run: such a failure says nothing about the code, so it does not count. */
const NOT_BEGUN = { countsAsAttempt: false }

/**
 * Decides for each call whether it runs an execution. In one process, at most one call at a time asks the
 * database about an execution, and the other calls share the answer. Between processes, the database
 * decides.
 */
export class Engine {
  readonly #store: ExecutionStore
  readonly #watch: ChangeListener
  readonly #owner: string
  readonly #storeTimeoutMs: number
  readonly #encryptor: Encryptor
  readonly #logger: Logger
  readonly #attemptDependencies: AttemptDependencies
  /** The attempts that this process runs, by execution id, until the database has recorded how they ended. */
  readonly #attempts = new Map<string, Attempt>()
  /** By execution id, the claim or take-over that this process has sent to the database. */
  readonly #acquisitions = new Map<string, Promise<Attempt | StoredExecution | null>>()
  /** Executions that this process is about to start, with the number of starts. */
  readonly #starting = new Map<string, number>()
  /** One promise per acquisition; it resolves when the acquisition and, if it failed, its undoing are over. */
  readonly #cleanups = new Set<Promise<void>>()
  readonly #memory = new JournalMemory()
  #accepting = true
  #stopped = false

  constructor(dependencies: EngineDependencies) {
    const { store, steps, watch, encryptor, owner, storeTimeoutMs, limits, logger } = dependencies
    this.#store = store
    this.#watch = watch
    this.#owner = owner
    this.#storeTimeoutMs = storeTimeoutMs
    this.#encryptor = encryptor
    this.#logger = logger
    this.#attemptDependencies = { store, steps, encryptor, limits, stopped: () => this.#stopped }
  }

  /**
   * Claims the execution, or reports its outcome or why it cannot be claimed.
   * @throws PawlError `store-unavailable`, `store-refused`, `stopping`, `decryption-failed`
   */
  async begin(call: BeginOptions): Promise<BeginResult> {
    const { id, fingerprint } = call.claim
    const deadline = performance.now() + call.waitMs
    const left = () => deadline - performance.now()
    while (this.#accepting) {
      const running = this.#attempts.get(id)
      if (running) {
        if (!running.fingerprint.equals(fingerprint)) return { kind: 'mismatch' }
        const settled = await withTimeout(left(), running.settled, call.signal?.())
        if (!settled) return { kind: 'running' }
        if (settled.kind === 'done') return { kind: 'replay', outcome: settled.outcome }
        continue
      }
      const acquisition = this.#acquisitions.get(id)
      const known = await (acquisition
        ? this.#joinAcquisition(acquisition)
        : this.#startAcquisition(call))
      if (known instanceof Attempt) {
        if (!acquisition) return { kind: 'run', attempt: known }
        continue
      }
      if (!known) continue
      let decision = decide(known, call, this.#encryptor)
      if (decision.kind === 'running' && left() > 0 && !this.#attempts.has(id)) {
        decision = (await this.#waitForOtherProcess(call, left())) ?? decision
      }
      if (decision.kind !== 'free') return decision
    }
    throw stopping()
  }

  /**
   * Starts the next attempt at an execution that this process's worker has leased.
   * @returns null if the execution already runs here, or if another process has it by now
   * @throws PawlError `store-unavailable`, `stopping`, `decryption-failed`; a worker leases the execution
   * again later
   */
  async resume(
    leased: LeasedExecution,
    createExecution?: AttemptOptions['createExecution'],
  ): Promise<Attempt | null> {
    const { id } = leased
    if (!this.#accepting) throw stopping()
    if (this.#attempts.has(id) || this.#acquisitions.has(id) || this.#starting.has(id)) return null
    const acquisition = this.#resume(leased, createExecution)
    this.#trackAcquisition(id, acquisition, false)
    return acquisition
  }

  async #resume(
    { id, incarnation, attempt, isQueued, scope, key, fingerprint }: LeasedExecution,
    createExecution: AttemptOptions['createExecution'],
  ): Promise<Attempt | null> {
    const giveUp = deadlineAfter(this.#storeTimeoutMs)
    // The lease may be outdated: a retry of the client may have resumed the execution here and ended it.
    const found = await retryWhileUnavailable(() => this.#store.read(id), giveUp)
    const isOurs = found?.status === 'running' && found.owner === this.#owner
    if (!isOurs || found.incarnation !== incarnation || found.attempt !== attempt) return null
    const options = {
      scope,
      key,
      fingerprint,
      resumable: true,
      recovering: true,
      ...(createExecution && { createExecution }),
    }
    return this.#runFromJournal({ id, incarnation, attempt, isQueued }, options, 'released', giveUp)
  }

  /**
   * Notes that this process is about to start an execution. Until the starter knows the result, the worker
   * must not mistake the execution for one whose start was lost.
   * @returns a function that removes the note
   */
  markStarting(id: string): () => void {
    this.#starting.set(id, (this.#starting.get(id) ?? 0) + 1)
    return () => {
      const others = (this.#starting.get(id) ?? 1) - 1
      if (others > 0) this.#starting.set(id, others)
      else this.#starting.delete(id)
    }
  }

  /** Runs the first attempt at an execution that this process has just started; its journal is empty. */
  run(ref: AttemptRef, options: Omit<AttemptOptions, 'recorded' | 'resumable'>): Attempt {
    return this.#run(ref, { ...options, resumable: true, recorded: [] })
  }

  /** The attempt at this execution that this process runs. */
  activeAttempt(id: string): Attempt | undefined {
    return this.#attempts.get(id)
  }

  /** Whether the engine has stopped: nothing may be sent to the database any more. */
  get isStopped(): boolean {
    return this.#stopped
  }

  /** Whether the engine still accepts work; false from the moment it begins to stop. */
  get isAccepting(): boolean {
    return this.#accepting
  }

  /** Decrypts an execution's stored input. @throws PawlError `decryption-failed` */
  decryptInput({ id, input }: { id: string; input: Buffer }): Buffer {
    return this.#encryptor.decrypt(input, id, 'input')
  }

  /** Encrypts an execution's input for storage. */
  encryptInput({ id, input }: { id: string; input: Buffer }): Buffer {
    return this.#encryptor.encrypt(input, id, 'input')
  }

  /** The ids of the executions that this process runs, starts or tries to acquire. */
  get busyIds(): string[] {
    return [...this.#attempts.keys(), ...this.#acquisitions.keys(), ...this.#starting.keys()]
  }

  /**
   * Accepts no more work, waits at most `drainMs` ms for the running attempts to end, and releases those
   * that have not.
   */
  async stop(drainMs: number): Promise<void> {
    this.#accepting = false
    await withTimeout(drainMs, this.#drain())
    this.#stopped = true
    await Promise.all(
      [...this.#attempts.values()].map((attempt) =>
        // Another process resumes it at once. A shutdown is no failure of the execution, so it does not count.
        attempt.interrupt({ delayMs: 0, countsAsAttempt: false }).catch(() => {}),
      ),
    )
  }

  /** Waits for acquisitions too, since each may become an attempt. */
  async #drain(): Promise<void> {
    while (this.#cleanups.size + this.#attempts.size > 0) {
      await Promise.all(this.#cleanups)
      await Promise.all([...this.#attempts.values()].map((attempt) => attempt.settled))
    }
  }

  /** Waits for the acquisition that another call of this process has started. */
  async #joinAcquisition(
    acquisition: Promise<Attempt | StoredExecution | null>,
  ): Promise<Attempt | StoredExecution | null> {
    const known = await withTimeout(
      this.#storeTimeoutMs,
      acquisition.then((known) => ({ known })),
    )
    if (known) return known.known
    throw new PawlError(
      'store-unavailable',
      'PostgreSQL did not answer in time.',
      'A client should retry with the same key.',
    )
  }

  #startAcquisition(call: BeginOptions): Promise<Attempt | StoredExecution> {
    const acquisition = this.#acquire(call)
    this.#trackAcquisition(call.claim.id, acquisition, true)
    return acquisition
  }

  /** @param isClaim whether the acquisition may have inserted the execution, which then no other process has */
  #trackAcquisition(
    id: string,
    acquisition: Promise<Attempt | StoredExecution | null>,
    isClaim: boolean,
  ): void {
    this.#acquisitions.set(id, acquisition)
    // If the reply was lost, the acquisition stays in the map until its undoing is over: meanwhile no
    // other call in this process may mistake the lost claim for its own.
    const landed = () => void this.#acquisitions.delete(id)
    const landing = acquisition
      .then(landed, (error) => this.#undoAcquisition(id, error, isClaim).finally(landed))
      .finally(() => this.#cleanups.delete(landing))
    this.#cleanups.add(landing)
  }

  /** Claims the execution, or takes it over if it is free; otherwise resolves to its stored state. */
  async #acquire(call: BeginOptions): Promise<Attempt | StoredExecution> {
    const { claim } = call
    const deadline = performance.now() + this.#storeTimeoutMs
    const giveUp = deadlineAfter(this.#storeTimeoutMs)
    const ask = <T>(operation: () => Promise<T>) => retryWhileUnavailable(operation, giveUp)
    for (;;) {
      const left = () => Math.max(1, deadline - performance.now())
      const result = await ask(() => this.#store.claim(claim, left()))
      const options = attemptOptionsOf(call)
      if ('claimed' in result) return this.#run(result.claimed, { ...options, recorded: [] })
      const { found } = result
      if (!found) continue // It was deleted after the claim had found it.
      const leased = await this.#takeIfFree(found, call, ask)
      const before = found.status === 'unknown' ? 'unknown' : 'released'
      if (leased) {
        const attempt = await this.#runFromJournal(leased, options, before, giveUp)
        if (attempt) return attempt
      }
      if (leased === undefined) return found
    }
  }

  /** Resolves to the attempt to run, to null if another process was faster, to undefined if it is not free. */
  async #takeIfFree(
    found: StoredExecution,
    call: BeginOptions,
    ask: <T>(operation: () => Promise<T>) => Promise<T>,
  ): Promise<AttemptRef | null | undefined> {
    const { id } = call.claim
    // It is ours, but this process does not run it: the claim succeeded and its reply was lost.
    const lost = found.status === 'running' && found.owner === this.#owner
    if (lost && !this.#attempts.has(id)) {
      if (!found.fingerprint.equals(call.claim.fingerprint)) return undefined
      return { id, incarnation: found.incarnation, attempt: found.attempt }
    }
    if (found.expired) return ask(() => this.#store.restartExpired(call.claim, found))
    if (decide(found, call, this.#encryptor).kind !== 'free') return undefined
    return ask(() => this.#store.takeOver(id, found))
  }

  /**
   * Reads the journal and runs an attempt over it. If an entry cannot be decrypted, releases the execution.
   * @returns null if a worker has asked for it, and there is no memory for the journal now
   */
  async #runFromJournal(
    ref: AttemptRef,
    options: Omit<AttemptOptions, 'recorded'>,
    before: 'released' | 'unknown',
    giveUp: () => boolean,
  ): Promise<Attempt | null> {
    const { steps } = this.#attemptDependencies
    const journal = await retryWhileUnavailable(() => steps.openJournal(ref), giveUp)
    const release = (ending: ReleaseOptions) =>
      retryWhileUnavailable(() => this.#store.release(ref, before, ending), giveUp)
    const free = this.#memory.reserve(journal.bytes, !options.recovering)
    if (!free) {
      await release({ ...NOT_BEGUN, delayMs: memoryPauseMs() })
      return null
    }
    let recorded: JournalEntry[] | undefined
    try {
      recorded = await retryWhileUnavailable(() => steps.completeJournal(ref, journal), giveUp)
      const attempt = this.#run(ref, { ...options, recorded })
      attempt.settled.then(free)
      return attempt
    } catch (error) {
      free()
      if (recorded) await release(NOT_BEGUN)
      throw error
    }
  }

  /** Whether the journals in memory leave no room for another one. */
  get isMemoryFull(): boolean {
    return this.#memory.isFull
  }

  #run(ref: AttemptRef, options: AttemptOptions): Attempt {
    if (this.#stopped) throw stopping()
    const attempt = new Attempt(this.#attemptDependencies, ref, options)
    this.#attempts.set(ref.id, attempt)
    attempt.settled.then((settled) => {
      if (this.#attempts.get(ref.id) === attempt) this.#attempts.delete(ref.id)
      if (settled.kind === 'done' && settled.own) this.#reportDivergence(attempt)
    })
    return attempt
  }

  /** Logs that the code has changed under an execution, which got its outcome nevertheless. */
  #reportDivergence({ execution, skippedSteps }: Attempt): void {
    if (skippedSteps.length === 0) return
    this.#logger.warn('an execution has ended without calling all of its recorded steps', {
      execution: execution.id,
      skipped: skippedSteps,
    })
  }

  /** Waits for an execution that another process runs; resolves to null if it is still running after that. */
  async #waitForOtherProcess(call: BeginOptions, timeoutMs: number): Promise<Decision | null> {
    const { id } = call.claim
    // A long wait may outlive a restart of the database: each operation has the time that a claim has.
    const ask = <T>(operation: () => Promise<T>) =>
      retryWhileUnavailableFor(this.#storeTimeoutMs, operation)
    await ask(() => this.#store.markAwaited(id))
    const look = async (): Promise<Decision | null> => {
      const found = await ask(() => this.#store.read(id))
      if (!found) return { kind: 'free' }
      const decision = decide(found, call, this.#encryptor)
      return decision.kind === 'running' && !this.#attempts.has(id) ? null : decision
    }
    const decision = await this.#watch.waitFor(id, look, timeoutMs, call.signal?.())
    // It runs here now: the caller finds the attempt in its next round.
    return decision?.kind === 'running' ? { kind: 'free' } : decision
  }

  /** Releases the execution if the failed acquisition has claimed it after all. */
  async #undoAcquisition(id: string, error: unknown, isClaim: boolean): Promise<void> {
    if (!(error instanceof PawlError && UNCERTAIN_CODES.has(error.code))) return
    const stopped = () => this.#stopped
    // Until then the claim may still be committed, and a look would come too early.
    await statementEnded(error)
    await retryWhileUnavailable(async () => {
      const found = await this.#store.read(id)
      if (found?.status !== 'running' || found.owner !== this.#owner) return
      const { incarnation, attempt } = found
      if (isClaim && attempt === 1) await this.#store.undoClaim(id, attempt)
      else await this.#store.release({ id, incarnation, attempt }, 'released', NOT_BEGUN)
    }, stopped).catch(() => {})
  }
}
