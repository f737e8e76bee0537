/** Keeps the workflow definitions of this process, and runs their executions with a worker. */

import type { Attempt, AttemptOptions } from '../engine/attempt.ts'
import { readExecution } from '../engine/execution-snapshot.ts'
import type { Journal } from '../engine/journal/journal.ts'
import { retryWhileUnavailable } from '../engine/retry/retry-while-unavailable.ts'
import { decodeValue } from '../engine/values/value-codec.ts'
import { type Reservation, Worker } from '../engine/worker.ts'
import { CancelledError, PawlError } from '../errors/index.ts'
import { WORK_DUE } from '../store/execution-store.ts'
import type { ExecutionSummary, LeasedExecution } from '../store/wakeup-store.ts'
import type { PendingSignal } from '../store/workflow-store.ts'
import { BlockedWaits } from './blocked-waits.ts'
import { handlerName, type WorkflowDefinition } from './definition.ts'
import type { WorkflowDependencies } from './dependencies.ts'
import { ExecutionControl, executionMissing } from './execution-control.ts'
import { RunningObjectHandler } from './object/object-execution.ts'
import { PendingWaits } from './pending-waits.ts'
import { AdmissionControl } from './queue/admission-control.ts'
import { runWorkflow } from './run-workflow.ts'
import { RunningWorkflow } from './running-workflow.ts'
import { Scheduler } from './schedule/scheduler.ts'
import { encodeInput, WorkflowStarter } from './workflow-starter.ts'

/** Everything about workflows in one process: definitions, worker, queue admission, scheduler. */
export class WorkflowService {
  readonly #definitions = new Map<string, WorkflowDefinition>()
  #dependencies: WorkflowDependencies | null = null
  #worker: Worker | null = null
  #admission: AdmissionControl | null = null
  #blockedWaits: BlockedWaits | null = null
  #stopListening = () => {}
  /** Executions that this process has just started. Their journals are empty, so reading them is skipped. */
  readonly #justStarted = new WeakSet<LeasedExecution>()
  /** Starts executions of workflows. */
  readonly starter = new WorkflowStarter(() => this.#requireStarted(), {
    reserve: (definition) => this.#reserve(definition),
    pollNow: () => this.pollNow(),
  })
  /** Controls started executions. */
  readonly control = new ExecutionControl(
    () => this.#requireStarted(),
    () => this.pollNow(),
  )
  /** Starts workflows on schedules. */
  readonly scheduler = new Scheduler(
    () => {
      const { schedules, engine, logger } = this.#requireStarted()
      return { store: schedules, isStopped: () => engine.isStopped, logger }
    },
    this.starter,
    (definition) => this.register(definition),
  )

  /**
   * Adds a definition; the worker then runs its executions.
   * @throws PawlError `invalid-option` if this kind, name and version is already defined
   */
  register(definition: WorkflowDefinition): void {
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

  /** All definitions of this process. */
  get definitions(): WorkflowDefinition[] {
    return [...this.#definitions.values()]
  }

  /** Makes a process whose worker was disabled run executions too. */
  enableWorker(concurrency: number): void {
    const dependencies = this.#requireStarted()
    this.#dependencies = { ...dependencies, concurrency }
    this.#startWorker()
  }

  /** Connects the service to a started Pawl, and starts the worker if there is a definition. */
  start(dependencies: WorkflowDependencies): void {
    this.#dependencies = dependencies
    dependencies.store.onWorkDue = () => this.#worker?.pollNow()
    const { engine, store, logger } = dependencies
    const blockedWaits = new BlockedWaits({
      store: dependencies.waits,
      announce: () => {
        void store.notify([WORK_DUE])
        this.pollNow()
      },
      isStopped: () => engine.isStopped,
      logger,
    })
    this.#blockedWaits = blockedWaits
    this.#admission = new AdmissionControl({
      store: dependencies.queues,
      definitions: () => this.#definitions.values(),
      announce: dependencies.announceQueues,
      onWaiting: (id) => void blockedWaits.look(id),
      pollNow: () => this.pollNow(),
      logger,
    })
    for (const store of [dependencies.store, dependencies.wakeups, dependencies.workflows]) {
      store.onAdvance = (advance) => this.#admission?.onAdvance(advance)
    }
    this.#startWorker()
  }

  /** Stops taking executions. It does not wait for those that run: the engine drains them. */
  async stop(): Promise<void> {
    this.scheduler.stop()
    this.#stopListening()
    await this.#worker?.stop()
  }

  /** The stores and services that the workflow code uses. @throws PawlError `not-started` */
  get dependencies(): WorkflowDependencies {
    return this.#requireStarted()
  }

  /** Makes the worker look for due executions now. */
  pollNow(): void {
    this.#worker?.pollNow()
  }

  #startWorker(): void {
    const dependencies = this.#dependencies
    if (
      !dependencies ||
      this.#worker ||
      this.#definitions.size === 0 ||
      dependencies.concurrency === 0
    )
      return
    const { engine, wakeups, changeListener, logger, concurrency } = dependencies
    const worker = new Worker({
      engine,
      wakeups,
      handlers: () => {
        changeListener.ensureListening()
        return [...this.#definitions.keys()]
      },
      concurrency,
      run: (leased) => this.#run(leased),
      admit: async () => {
        void this.#blockedWaits?.sweep()
        return (await this.#admission?.admit()) ?? { hasMore: false, nextMs: null }
      },
      onLeased: (leased) => this.#admission?.onLeased(leased),
      onCancelling: ({ id }: ExecutionSummary) =>
        engine.activeAttempt(id)?.halt(new CancelledError()),
      logger,
    })
    this.#worker = worker
    this.#stopListening = changeListener.subscribe(WORK_DUE, () => worker.pollNow())
    worker.start()
  }

  /** Reserves room in the worker for an execution that this process is about to start; null: there is none. */
  #reserve(definition: WorkflowDefinition): Reservation | null {
    const isRegistered = this.#definitions.get(definition.handler) === definition
    if (!isRegistered || !this.#dependencies?.engine.isAccepting) return null
    const reservation = this.#worker?.reserve() ?? null
    return (
      reservation && {
        ...reservation,
        run: (leased) => {
          this.#justStarted.add(leased)
          reservation.run(leased)
        },
      }
    )
  }

  /** Runs an execution that this process has leased, until it ends or is given back. */
  async #run(leased: LeasedExecution): Promise<void> {
    const { engine, workflows, limits, logger } = this.#requireStarted()
    const definition = this.#definitions.get(handlerName(leased.kind, leased.name, leased.version))
    if (!definition) return
    const { id, incarnation, attempt: number, isQueued, scope, key, fingerprint } = leased
    let journal: Journal | undefined
    const createExecution: NonNullable<AttemptOptions['createExecution']> = (
      executionDependencies,
      attempt,
    ) => {
      journal = executionDependencies.journal
      journal.synchronizeClock(leased.at)
      return this.#createExecution(definition, leased, executionDependencies, attempt)
    }
    const attempt = this.#justStarted.has(leased)
      ? engine.run(
          { id, incarnation, attempt: number, isQueued },
          { scope, key, fingerprint, recovering: false, createExecution },
        )
      : await engine.resume(leased, createExecution)
    if (!attempt || !journal) return
    try {
      const bytes = engine.decryptInput(leased)
      const input = decodeValue(bytes.length === 0 ? null : bytes)
      const maxOutputBytes = limits.output
      const cancelChildren = async () => void (await this.control.cancel(id))
      const { attempts: maxAttempts } = definition.retry
      const { timeoutMs } = definition
      const continueAs = (bytes: Buffer) => {
        const input = engine.encryptInput({ id, input: bytes })
        const ref = { id, incarnation, attempt: number }
        return retryWhileUnavailable(
          () => workflows.continueAs({ ...ref, input, maxAttempts, timeoutMs }),
          () => engine.isStopped,
        )
      }
      await runWorkflow({
        attempt,
        journal,
        definition,
        input,
        leased,
        continuation: (attempt.execution as RunningWorkflow).continuation,
        continueAs,
        cancelChildren,
        maxOutputBytes,
        logger,
      })
    } finally {
      // Gives the execution back if nothing was recorded about its end; a settled attempt stays as it is.
      const settled = await attempt.release('released')
      // The execution has got a new due time, which the worker has not read yet.
      if (settled.kind !== 'done') this.#worker?.pollNow()
    }
  }

  #createExecution(
    definition: WorkflowDefinition,
    leased: LeasedExecution,
    executionDependencies: ConstructorParameters<typeof RunningWorkflow>[0],
    attempt: Attempt,
  ): RunningWorkflow {
    const { engine, store, workflows, state, changeListener, encryptor, limits, logger } =
      this.#requireStarted()
    const { id, incarnation, attempt: number, inbox, deadline } = leased
    const isStopped = () => engine.isStopped
    const waits = new PendingWaits({
      ref: { id, incarnation, attempt: number },
      attempt,
      journal: executionDependencies.journal,
      store: workflows,
      changeListener,
      inbox,
      deadline: deadline === null ? null : BigInt(deadline),
      onWaiting: (id) => void this.#blockedWaits?.look(id),
      isWorkerFull: () => !engine.isAccepting || (this.#worker?.isFull ?? true),
      isStopped,
    })
    const workflowDependencies = {
      version: definition.version,
      deadlock: leased.deadlock ?? null,
      waits,
      store: workflows,
      encodeInput: (input: unknown) => encodeInput(definition, input, limits.input),
      unreadSignals: async function* (name: string) {
        for (let after: string | null = null; ; ) {
          const { signals, hasMore } = await retryWhileUnavailable(
            () => workflows.readPendingSignals(id, name, after),
            isStopped,
          )
          yield* signals
          if (!hasMore) return
          after = (signals.at(-1) as PendingSignal).sender
        }
      },
      readOutcome: async (id: string) => {
        const storeTimeoutMs = Number.POSITIVE_INFINITY
        const snapshot = await readExecution(
          { store, encryptor, storeTimeoutMs, isStopped },
          { id },
        )
        // The execution was deleted when its retention was over, so its outcome can never arrive.
        if (!snapshot) throw executionMissing(id)
        return snapshot.outcome
      },
      onInvalidSignal: (signal: string, error: unknown) =>
        logger.warn('a signal does not match its schema, and is left unread', {
          execution: id,
          signal,
          error,
        }),
      decodeSignal: (name: string, value: Buffer | null) =>
        decodeValue(value && encryptor.decrypt(value, id, `signal ${name}`)),
    }
    if (!definition.object) return new RunningWorkflow(executionDependencies, workflowDependencies)
    const { name: object, readOnly } = definition.object
    return new RunningObjectHandler(executionDependencies, workflowDependencies, {
      stateKey: { object, key: leased.scope },
      readOnly,
      store: state,
      encryptor,
      maxBytes: limits.output,
      isStopped,
    })
  }

  #requireStarted(): WorkflowDependencies {
    if (this.#dependencies) return this.#dependencies
    throw new PawlError('not-started', 'Pawl has not been started.', 'Await pawl.start() first.')
  }
}
