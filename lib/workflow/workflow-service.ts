import type { Attempt, AttemptOptions } from '../engine/attempt.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { openOutcome } from '../engine/outcome-encryption.ts'
import { persist } from '../engine/retry/retry-while-unavailable.ts'
import { decodeValue } from '../engine/values/value-codec.ts'
import { type Reservation, Worker } from '../engine/worker.ts'
import { CancelledError, PawlError } from '../errors/index.ts'
import { DUE } from '../store/execution-store.ts'
import type { Named, Taken } from '../store/wakeup-store.ts'
import { Control, missing } from './execution-control.ts'
import { type Definition, handlerOf } from './definition.ts'
import { RunningObject } from './object/object-execution.ts'
import type { WorkflowParts } from './dependencies.ts'
import { Admission } from './queue/admission-control.ts'
import { runWorkflow } from './run-workflow.ts'
import { RunningWorkflow } from './running-workflow.ts'
import { Schedules } from './schedule/scheduler.ts'
import { Starter } from './workflow-starter.ts'
import { Waits } from './pending-waits.ts'

/** The workflows that this process knows, and its worker. */
export class Workflows {
  readonly #definitions = new Map<string, Definition>()
  #parts: WorkflowParts | null = null
  #worker: Worker | null = null
  #admission: Admission | null = null
  #stopListening = () => {}
  /** Executions that were started here, and have recorded nothing yet. */
  readonly #fresh = new WeakSet<Taken>()
  /** Starts executions. */
  readonly starter = new Starter(() => this.#started(), {
    reserve: (definition) => this.#reserve(definition),
    kick: () => this.kick(),
  })
  /** Asks things of those that were started. */
  readonly control = new Control(
    () => this.#started(),
    () => this.kick(),
  )
  /** Starts them when their time has come. */
  readonly schedules = new Schedules(
    () => {
      const { schedules, engine, logger } = this.#started()
      return { store: schedules, stopped: () => engine.isStopped, logger }
    },
    this.starter,
    (definition) => this.define(definition),
  )

  /** @throws PawlError `invalid-option` if the name is taken */
  define(definition: Definition): void {
    if (this.#definitions.has(definition.handler)) {
      throw new PawlError(
        'invalid-option',
        `There are two definitions of "${definition.name}"${definition.version === null ? '' : ` of version "${definition.version}"`}.`,
        'Give one of them another name, or another version.',
      )
    }
    this.#definitions.set(definition.handler, definition)
    this.#startWorker()
  }

  /** All that this process knows. */
  get definitions(): Definition[] {
    return [...this.#definitions.values()]
  }

  /** Lets a process that only started executions run them as well. */
  employ(concurrency: number): void {
    const parts = this.#started()
    this.#parts = { ...parts, concurrency }
    this.#startWorker()
  }

  open(parts: WorkflowParts): void {
    this.#parts = parts
    parts.store.onDue = () => this.#worker?.kick()
    this.#admission = new Admission({
      store: parts.queues,
      definitions: () => this.#definitions.values(),
      kick: () => this.kick(),
      logger: parts.logger,
    })
    parts.store.onFree = (lane) => this.#admission?.freed(lane)
    this.#startWorker()
  }

  /** Takes no more; what is running is the engine's to drain. */
  async stop(): Promise<void> {
    this.schedules.close()
    this.#stopListening()
    await this.#worker?.stop()
  }

  /** What workflows need of this process. @throws PawlError `not-started` */
  get parts(): WorkflowParts {
    return this.#started()
  }

  /** Looks now whether there is something to do. */
  kick(): void {
    this.#worker?.kick()
  }

  #startWorker(): void {
    const parts = this.#parts
    if (!parts || this.#worker || this.#definitions.size === 0 || parts.concurrency === 0) return
    const { engine, wakeups, watch, logger, concurrency } = parts
    const worker = new Worker({
      engine,
      wakeups,
      handlers: () => {
        watch.keepListening()
        return [...this.#definitions.keys()]
      },
      concurrency,
      run: (taken) => this.#run(taken),
      ...(this.#admission && {
        admit: this.#admission.admit.bind(this.#admission),
        onParked: this.#admission.sweepSoon.bind(this.#admission),
      }),
      onCancelling: ({ id }: Named) => engine.attemptAt(id)?.halt(new CancelledError()),
      logger,
    })
    this.#worker = worker
    this.#stopListening = watch.subscribe(DUE, () => worker.kick())
    worker.start()
  }

  #reserve(definition: Definition): Reservation | null {
    const isOurs = this.#definitions.get(definition.handler) === definition
    if (!isOurs || !this.#parts?.engine.isAccepting) return null
    const reservation = this.#worker?.reserve() ?? null
    return (
      reservation && {
        ...reservation,
        run: (taken) => {
          this.#fresh.add(taken)
          reservation.run(taken)
        },
      }
    )
  }

  /** Runs an execution of this process's. */
  async #run(taken: Taken): Promise<void> {
    const { engine, limits, logger } = this.#started()
    const definition = this.#definitions.get(handlerOf(taken.kind, taken.name, taken.version))
    if (!definition) return
    const { id, born, attempt: number, scope, key, fingerprint } = taken
    let journal: Journal | undefined
    const make: NonNullable<AttemptOptions['make']> = (parts, attempt) => {
      journal = parts.journal
      parts.journal.synchronize(taken.at)
      return this.#executionOf(definition, taken, parts, attempt)
    }
    const attempt = this.#fresh.has(taken)
      ? engine.run(
          { id, born, attempt: number },
          { scope, key, fingerprint, recovering: false, make },
        )
      : await engine.resume(taken, make)
    if (!attempt || !journal) return
    try {
      const bytes = engine.open(taken)
      const input = decodeValue(bytes.length === 0 ? null : bytes)
      const maxOutputBytes = limits.output
      const cancelChildren = async () => void (await this.control.cancel(id))
      await runWorkflow({
        attempt,
        journal,
        definition,
        input,
        taken,
        cancelChildren,
        maxOutputBytes,
        logger,
      })
    } finally {
      // Whatever ended without recording anything gives it back; what has settled stays as it is.
      const settled = await attempt.release('released')
      // It goes on at a time that the worker does not know of yet.
      if (settled.kind !== 'done') this.#worker?.kick()
    }
  }

  #executionOf(
    definition: Definition,
    taken: Taken,
    parts: ConstructorParameters<typeof RunningWorkflow>[0],
    attempt: Attempt,
  ): RunningWorkflow {
    const { engine, store, workflows, state, watch, sealer, limits, logger } = this.#started()
    const { id, born, attempt: number, inbox, deadline } = taken
    const stopped = () => engine.isStopped
    const waits = new Waits({
      ref: { id, born, attempt: number },
      attempt,
      journal: parts.journal,
      store: workflows,
      watch,
      inbox,
      deadline: deadline === null ? null : BigInt(deadline),
      crowded: () => !engine.isAccepting || (this.#worker?.isFull ?? true),
      stopped,
    })
    const own = {
      version: definition.version,
      waits,
      store: workflows,
      unread: (name: string) => persist(() => workflows.unread(id, name), stopped),
      outcomeOf: async (id: string) => {
        const found = await persist(() => store.look(id), stopped)
        // Its outcome was kept for as long as it was to be: nothing else would ever come.
        if (!found) throw missing(id)
        return found.outcome ? openOutcome(sealer, id, found.outcome) : null
      },
      onRefused: (signal: string, error: unknown) =>
        logger.warn('a signal does not fit its schema, and is left unread', {
          execution: id,
          signal,
          error,
        }),
      openSignal: (name: string, value: Buffer | null) =>
        decodeValue(value && sealer.open(value, id, `signal ${name}`)),
    }
    if (!definition.object) return new RunningWorkflow(parts, own)
    const { name: object, readOnly } = definition.object
    return new RunningObject(parts, own, {
      at: { object, key: taken.scope },
      readOnly,
      store: state,
      sealer,
      maxBytes: limits.output,
      stopped: () => engine.isStopped,
    })
  }

  #started(): WorkflowParts {
    if (this.#parts) return this.#parts
    throw new PawlError('not-started', 'Pawl has not been started.', 'Await pawl.start() first.')
  }
}
