import type { Attempt, AttemptOptions } from '../engine/attempt.ts'
import type { Journal } from '../engine/journal.ts'
import { openOutcome } from '../engine/outcome.ts'
import { persist } from '../engine/persist.ts'
import { decodeValue } from '../engine/value.ts'
import { type Reservation, Worker } from '../engine/worker.ts'
import { CancelledError, PawlError } from '../errors.ts'
import type { Named, Taken } from '../store/wakeup-store.ts'
import { DUE } from '../store/workflow-store.ts'
import { Control } from './control.ts'
import { type Definition, handlerOf } from './definition.ts'
import type { WorkflowParts } from './parts.ts'
import { runWorkflow } from './run.ts'
import { Schedules } from './schedules.ts'
import { Starter } from './starter.ts'
import { Waits } from './waits.ts'
import { RunningWorkflow } from './workflow-execution.ts'

/** The workflows that this process knows, and its worker. */
export class Workflows {
  readonly #definitions = new Map<string, Definition>()
  #parts: WorkflowParts | null = null
  #worker: Worker | null = null
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
    parts.store.onFree = () => this.#worker?.kick()
    this.#startWorker()
  }

  /** Takes no more; what is running is the engine's to drain. */
  async stop(): Promise<void> {
    this.schedules.close()
    this.#stopListening()
    await this.#worker?.stop()
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
      await runWorkflow({ attempt, journal, definition, input, taken, maxOutputBytes, logger })
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
    const { engine, store, workflows, watch, sealer, logger } = this.#started()
    const { id, born, attempt: number, inbox, deadline } = taken
    const waits = new Waits({
      ref: { id, born, attempt: number },
      attempt,
      journal: parts.journal,
      store: workflows,
      watch,
      inbox,
      deadline: deadline === null ? null : BigInt(deadline),
      crowded: () => !engine.isAccepting || (this.#worker?.isFull ?? true),
      stopped: () => engine.isStopped,
    })
    return new RunningWorkflow(parts, {
      version: definition.version,
      waits,
      store: workflows,
      outcomeOf: async (id) => {
        const found = await persist(
          () => store.look(id),
          () => engine.isStopped,
        )
        return found?.outcome ? openOutcome(sealer, id, found.outcome) : null
      },
      onRefused: (signal, error) =>
        logger.warn('a signal does not fit its schema, and is left unread', {
          execution: id,
          signal,
          error,
        }),
      openSignal: (name, value) => decodeValue(value && sealer.open(value, id, `signal ${name}`)),
    })
  }

  #started(): WorkflowParts {
    if (this.#parts) return this.#parts
    throw new PawlError('not-started', 'Pawl has not been started.', 'Await pawl.start() first.')
  }
}
