import { PawlError, type PawlErrorCode } from '../errors/index.ts'
import type { Logger } from '../options/logger.ts'
import type { StepStore } from '../store/step-store.ts'
import type { AttemptRef, Claim, Found, Outcome, Store } from '../store/store.ts'
import type { Taken } from '../store/wakeup-store.ts'
import type { Watch } from '../store/watch.ts'
import { Attempt, type AttemptOptions, type AttemptTools } from './attempt.ts'
import type { JournalLimits } from './limits.ts'
import { openOutcome } from './outcome.ts'
import { after, persist } from './retry/persist.ts'
import { within } from './retry/within.ts'
import type { Sealer } from './values/seal.ts'

/** One arrival of a keyed piece of work. */
export interface Call {
  claim: Claim
  /** Whether an attempt that ended without an outcome may be run again; undefined: if it has a journal. */
  resumable: boolean | undefined
  /** How long to wait for an attempt that is running, in ms. */
  waitMs: number
  /** Gives a signal that fires when nobody waits for the answer any more; asked for before waiting. */
  signal?: () => AbortSignal
}

/** What a call is told. */
export type Begun =
  | { kind: 'run'; attempt: Attempt }
  | { kind: 'replay'; outcome: Outcome }
  /** The same key names another piece of work. */
  | { kind: 'mismatch' }
  /** Still running after the wait. */
  | { kind: 'running' }
  /** An earlier attempt ended, and nobody can know what it did. */
  | { kind: 'unknown' }

/** What an engine is made of. */
export interface EngineParts {
  store: Store
  steps: StepStore
  watch: Watch
  sealer: Sealer
  /** The id of this process. */
  owner: string
  /** How long a call may wait for a store that cannot be reached, in ms. */
  storeTimeoutMs: number
  limits: JournalLimits
  logger: Logger
}

/** Errors after which it is not known whether an execution was taken, or known that it was in vain. */
const UNDONE = new Set<PawlErrorCode>(['store-unavailable', 'stopping'])

/** What the database says of an execution that this process does not run. */
type Verdict = Exclude<Begun, { kind: 'run' }> | { kind: 'free' }

/**
 * Decides, for each call, who runs what. In one process at most one call at a time asks the database
 * about an execution, and the others share the answer; between processes the database decides.
 */
export class Engine {
  readonly #store: Store
  readonly #watch: Watch
  readonly #owner: string
  readonly #storeTimeoutMs: number
  readonly #logger: Logger
  readonly #tools: AttemptTools
  /** Executions that this process runs, until the database knows how they ended. */
  readonly #attempts = new Map<string, Attempt>()
  /** Executions that this process asks about. */
  readonly #flights = new Map<string, Promise<Attempt | Found | null>>()
  /** Executions that this process is about to start, and by how many. */
  readonly #starting = new Map<string, number>()
  /** When each of those questions, and what has to be undone after it, is over. */
  readonly #landings = new Set<Promise<void>>()
  #accepting = true
  #stopped = false

  constructor(parts: EngineParts) {
    const { store, steps, watch, sealer, owner, storeTimeoutMs, limits, logger } = parts
    this.#store = store
    this.#watch = watch
    this.#owner = owner
    this.#storeTimeoutMs = storeTimeoutMs
    this.#logger = logger
    this.#tools = { store, steps, sealer, limits, stopped: () => this.#stopped }
  }

  /**
   * Claims the execution, or says what became of it.
   * @throws PawlError `store-unavailable`, `store-refused`, `stopping`, `decryption-failed`
   */
  async begin(call: Call): Promise<Begun> {
    const { id, fingerprint } = call.claim
    const deadline = performance.now() + call.waitMs
    const left = () => deadline - performance.now()
    while (this.#accepting) {
      const running = this.#attempts.get(id)
      if (running) {
        if (!running.fingerprint.equals(fingerprint)) return { kind: 'mismatch' }
        const settled = await within(left(), running.settled, call.signal?.())
        if (!settled) return { kind: 'running' }
        if (settled.kind === 'done') return { kind: 'replay', outcome: settled.outcome }
        continue
      }
      const flight = this.#flights.get(id)
      const known = await (flight ? this.#share(flight) : this.#fly(call))
      if (known instanceof Attempt) {
        if (!flight) return { kind: 'run', attempt: known }
        continue
      }
      if (!known) continue
      let verdict = this.#judge(known, call)
      if (verdict.kind === 'running' && left() > 0 && !this.#attempts.has(id)) {
        verdict = (await this.#waitElsewhere(call, left())) ?? verdict
      }
      if (verdict.kind !== 'free') return verdict
    }
    throw stopping()
  }

  /**
   * Goes on with an execution that a worker has taken.
   * @returns null if it runs here already, or if somebody else has it by now
   * @throws PawlError `store-unavailable`, `stopping`, `decryption-failed`; the execution is then taken
   * again later
   */
  async resume(taken: Taken, make?: AttemptOptions['make']): Promise<Attempt | null> {
    const { id } = taken
    if (!this.#accepting) throw stopping()
    if (this.#attempts.has(id) || this.#flights.has(id) || this.#starting.has(id)) return null
    const flight = this.#resume(taken, make)
    this.#register(id, flight, false)
    return flight
  }

  async #resume(
    { id, born, attempt, scope, key, fingerprint }: Taken,
    make: AttemptOptions['make'],
  ): Promise<Attempt | null> {
    const giveUp = after(this.#storeTimeoutMs)
    // The news may be old: a retry of the client, here, may have gone on with it and finished.
    const found = await persist(() => this.#store.look(id), giveUp)
    const isOurs = found?.status === 'running' && found.owner === this.#owner
    if (!isOurs || found.born !== born || found.attempt !== attempt) return null
    const options = {
      scope,
      key,
      fingerprint,
      resumable: true,
      recovering: true,
      ...(make && { make }),
    }
    return this.#goOn({ id, born, attempt }, options, 'released', giveUp)
  }

  /**
   * Keeps an execution that this process is about to start to whoever starts it: until it has heard what
   * came of that, its worker must not mistake it for one whose start was lost.
   * @returns a function that ends this
   */
  starts(id: string): () => void {
    this.#starting.set(id, (this.#starting.get(id) ?? 0) + 1)
    return () => {
      const others = (this.#starting.get(id) ?? 1) - 1
      if (others > 0) this.#starting.set(id, others)
      else this.#starting.delete(id)
    }
  }

  /** Runs an execution that this process has just started, and that has recorded nothing yet. */
  run(ref: AttemptRef, options: Omit<AttemptOptions, 'recorded' | 'resumable'>): Attempt {
    return this.#run(ref, { ...options, resumable: true, recorded: [] })
  }

  /** The attempt at this execution that runs here. */
  attemptAt(id: string): Attempt | undefined {
    return this.#attempts.get(id)
  }

  /** Whether it has stopped, and nothing may be tried any more. */
  get isStopped(): boolean {
    return this.#stopped
  }

  get isAccepting(): boolean {
    return this.#accepting
  }

  /** What an execution was asked, as the app gave it to `seal`. @throws PawlError `decryption-failed` */
  open({ id, input }: { id: string; input: Buffer }): Buffer {
    return this.#tools.sealer.open(input, id, 'input')
  }

  /** What an execution is asked, as it is stored. */
  seal({ id, input }: { id: string; input: Buffer }): Buffer {
    return this.#tools.sealer.seal(input, id, 'input')
  }

  /** The executions that this process runs, starts, or asks about. */
  get busy(): string[] {
    return [...this.#attempts.keys(), ...this.#flights.keys(), ...this.#starting.keys()]
  }

  /**
   * Takes no more work, waits until what is running has ended, for at most `drainMs`, and gives the
   * rest back.
   */
  async stop(drainMs: number): Promise<void> {
    this.#accepting = false
    await within(drainMs, this.#drain())
    this.#stopped = true
    await Promise.all(
      [...this.#attempts.values()].map((attempt) =>
        // Another process goes on with it at once; that this one stops is no failure.
        attempt.interrupt({ delayMs: 0, counts: false }).catch(() => {}),
      ),
    )
  }

  /** A question that is under way may become an attempt. */
  async #drain(): Promise<void> {
    while (this.#landings.size + this.#attempts.size > 0) {
      await Promise.all(this.#landings)
      await Promise.all([...this.#attempts.values()].map((attempt) => attempt.settled))
    }
  }

  /** Joins a question that another call of this process is asking. */
  async #share(flight: Promise<Attempt | Found | null>): Promise<Attempt | Found | null> {
    const known = await within(
      this.#storeTimeoutMs,
      flight.then((known) => ({ known })),
    )
    if (known) return known.known
    throw new PawlError(
      'store-unavailable',
      'PostgreSQL did not answer in time.',
      'A client should retry with the same key.',
    )
  }

  #fly(call: Call): Promise<Attempt | Found> {
    const flight = this.#acquire(call)
    this.#register(call.claim.id, flight, true)
    return flight
  }

  /** @param isClaim whether it may have made the execution, which then is nobody else's */
  #register(id: string, flight: Promise<Attempt | Found | null>, isClaim: boolean): void {
    this.#flights.set(id, flight)
    // A question whose answer was lost keeps the execution to itself until it is settled what came
    // of it: nobody in this process may mistake the lost claim for a new one meanwhile.
    const landed = () => void this.#flights.delete(id)
    const landing = flight
      .then(landed, (error) => this.#undo(id, error, isClaim).finally(landed))
      .finally(() => this.#landings.delete(landing))
    this.#landings.add(landing)
  }

  /** Asks the database, and takes the execution if it is free. */
  async #acquire(call: Call): Promise<Attempt | Found> {
    const { claim } = call
    const giveUp = after(this.#storeTimeoutMs)
    const ask = <T>(operation: () => Promise<T>) => persist(operation, giveUp)
    for (;;) {
      const result = await ask(() => this.#store.claim(claim))
      const options = optionsOf(call)
      if ('claimed' in result) return this.#run(result.claimed, { ...options, recorded: [] })
      const { found } = result
      if (!found) continue // It was deleted between two looks.
      const taken = await this.#take(found, call, ask)
      const before = found.status === 'unknown' ? 'unknown' : 'released'
      if (taken) return this.#goOn(taken, options, before, giveUp)
      if (taken === undefined) return found
    }
  }

  /** The attempt if this call may run one, null if somebody was faster, undefined if it may not. */
  async #take(
    found: Found,
    call: Call,
    ask: <T>(operation: () => Promise<T>) => Promise<T>,
  ): Promise<AttemptRef | null | undefined> {
    const { id } = call.claim
    // Ours, and this process is not running it: the claim was made and its reply lost.
    const lost = found.status === 'running' && found.owner === this.#owner
    if (lost && !this.#attempts.has(id)) {
      if (!found.fingerprint.equals(call.claim.fingerprint)) return undefined
      return { id, born: found.born, attempt: found.attempt }
    }
    if (found.expired) return ask(() => this.#store.restart(call.claim, found))
    if (this.#judge(found, call).kind !== 'free') return undefined
    return ask(() => this.#store.takeOver(id, found))
  }

  /** Runs an attempt that goes on behind what is recorded; if that does not open, it is given back. */
  async #goOn(
    ref: AttemptRef,
    options: Omit<AttemptOptions, 'recorded'>,
    before: 'released' | 'unknown',
    giveUp: () => boolean,
  ): Promise<Attempt> {
    const recorded = await persist(() => this.#tools.steps.journal(ref), giveUp)
    try {
      return this.#run(ref, { ...options, recorded })
    } catch (error) {
      await persist(() => this.#store.release(ref, before), giveUp)
      throw error
    }
  }

  #run(ref: AttemptRef, options: AttemptOptions): Attempt {
    if (this.#stopped) throw stopping()
    const attempt = new Attempt(this.#tools, ref, options)
    this.#attempts.set(ref.id, attempt)
    attempt.settled.then((settled) => {
      if (this.#attempts.get(ref.id) === attempt) this.#attempts.delete(ref.id)
      if (settled.kind === 'done' && settled.own) this.#reportDivergence(attempt)
    })
    return attempt
  }

  /** The code has changed under an execution: it got its outcome, but somebody should know. */
  #reportDivergence({ execution, skippedSteps }: Attempt): void {
    if (skippedSteps.length === 0) return
    this.#logger.warn('an execution has ended without asking for all of its recorded steps', {
      execution: execution.id,
      skipped: skippedSteps,
    })
  }

  #judge(found: Found, call: Call): Verdict {
    if (found.expired) return { kind: 'free' }
    if (!found.fingerprint.equals(call.claim.fingerprint)) return { kind: 'mismatch' }
    if (found.outcome) {
      const outcome = openOutcome(this.#tools.sealer, call.claim.id, found.outcome)
      return { kind: 'replay', outcome }
    }
    if (found.status === 'released' || found.status === 'parked') return { kind: 'free' }
    if (found.status === 'running' && found.ownerAlive) return { kind: 'running' }
    // Interrupted, or already known to be unknown: one rule for both. What is recorded can be resumed;
    // of an attempt that recorded nothing, nobody can know what it did.
    return (call.resumable ?? found.journaled) ? { kind: 'free' } : { kind: 'unknown' }
  }

  /** Waits for an execution that another process runs; null if it is still running after that. */
  async #waitElsewhere(call: Call, timeoutMs: number): Promise<Verdict | null> {
    const { id } = call.claim
    // A long wait may see a database restart: each question has the time that a claim has.
    const ask = <T>(operation: () => Promise<T>) => persist(operation, after(this.#storeTimeoutMs))
    await ask(() => this.#store.await(id))
    const look = async (): Promise<Verdict | null> => {
      const found = await ask(() => this.#store.look(id))
      if (!found) return { kind: 'free' }
      const verdict = this.#judge(found, call)
      return verdict.kind === 'running' && !this.#attempts.has(id) ? null : verdict
    }
    const verdict = await this.#watch.until(id, look, timeoutMs, call.signal?.())
    // Running here now: the caller finds the attempt when it asks again.
    return verdict?.kind === 'running' ? { kind: 'free' } : verdict
  }

  /** Makes sure that a claim of which nobody knows whether it was made is not left behind. */
  async #undo(id: string, error: unknown, isClaim: boolean): Promise<void> {
    if (!(error instanceof PawlError && UNDONE.has(error.code))) return
    const stopped = () => this.#stopped
    await persist(async () => {
      const found = await this.#store.look(id)
      if (found?.status !== 'running' || found.owner !== this.#owner) return
      const { born, attempt } = found
      if (isClaim && attempt === 1) await this.#store.disown(id, attempt)
      else await this.#store.release({ id, born, attempt }, 'released')
    }, stopped).catch(() => {})
  }
}

function optionsOf({ claim, resumable }: Call): Omit<AttemptOptions, 'recorded'> {
  const { scope, key, fingerprint } = claim
  return { scope, key, fingerprint, resumable, recovering: false }
}

function stopping(): PawlError {
  return new PawlError(
    'stopping',
    'This process is shutting down and takes no more work.',
    'Retry: another process will answer.',
  )
}
