/** The class `Pawl`: creates all the parts, connects them to each other, and starts and stops them. */

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener } from 'node:http'
import { redeliverRequest } from './adapters/node/recovery.ts'
import { Engine } from './engine/engine.ts'
import { type ExecutionName, type ExecutionState, executionIdOf } from './engine/execution-name.ts'
import { Observer } from './engine/observer.ts'
import { retryWhileUnavailableFor } from './engine/retry/retry-while-unavailable.ts'
import { withTimeout } from './engine/retry/with-timeout.ts'
import { startedInstances } from './engine/started-instances.ts'
import { Encryptor } from './engine/values/encryptor.ts'
import { Worker } from './engine/worker.ts'
import { PawlError } from './errors/index.ts'
import type { PawlLike, RequestRuntime } from './http/runtime.ts'
import type { Logger } from './options/logger.ts'
import { parseOptions } from './options/parse-options.ts'
import { type PawlOptions, pawlOptions } from './pawl-options.ts'
import type { StatusOptions, StatusRuntime } from './status/endpoint.ts'
import { type StatusHandler, statusHandler, statusResponse } from './status/handlers.ts'
import { ChangeListener } from './store/change-listener.ts'
import type { Database } from './store/database/database.ts'
import { openDatabase } from './store/database/open-database.ts'
import type { TransactionHost } from './store/database/transaction-host.ts'
import { ExecutionReader } from './store/execution-reader.ts'
import { ExecutionStore, WORK_DUE } from './store/execution-store.ts'
import { Heartbeat } from './store/heartbeat.ts'
import { migrate } from './store/migrate.ts'
import { checkSchema } from './store/migrations/schema-version.ts'
import { Retention } from './store/retention.ts'
import { StepStore } from './store/step-store.ts'
import { type LeasedExecution, WakeupStore } from './store/wakeup-store.ts'
import { openWorkflowStores } from './store/workflow-stores.ts'
import { WorkflowApi } from './workflow/workflow-api.ts'

/** The parts of a started Pawl. */
interface Components {
  db: Database
  store: ExecutionStore
  changeListener: ChangeListener
  engine: Engine
  observer: Observer
  heartbeat: Heartbeat
  retention: Retention
  wakeups: WakeupStore
  /** Resumes requests; null before the app has called `recoverRequests()`. */
  worker: Worker | null
}

/** How many requests a process recovers at a time. Low, since it also serves requests of its own. */
const RECOVERY_CONCURRENCY = 4

const SILENT: Logger = { debug() {}, warn() {} }

/**
 * Gives an app idempotency keys, durable steps and workflows. Create one instance in each process.
 *
 * ```ts
 * const pawl = new Pawl({ database: pool })
 * await pawl.start()
 * app.use(idempotency(pawl))
 * process.once('SIGTERM', async () => {
 *   server.close()
 *   await pawl.stop()
 * })
 * ```
 */
export class Pawl extends WorkflowApi implements PawlLike {
  readonly #options
  #state: 'new' | 'started' | 'stopped' | 'abandoned' = 'new'
  #components: Components | null = null
  #requestListener: RequestListener | undefined

  /** @throws PawlError `invalid-option` */
  constructor(options: PawlOptions) {
    super()
    this.#options = parseOptions(pawlOptions, options, 'new Pawl()')
  }

  /**
   * Checks (or, with `migrate: true`, applies) the schema, registers this process and starts its
   * heartbeat.
   * @throws PawlError `schema-missing`, `schema-outdated`, `schema-newer`, `migration-blocked`, `migration-failed`,
   * `store-unavailable`
   */
  async start(): Promise<void> {
    if (this.#state === 'started') return
    const {
      database,
      maxConnections,
      schema,
      storeTimeout,
      logger,
      instance = null,
    } = this.#options
    const db = await openDatabase(database, storeTimeout, maxConnections)
    const id = randomUUID()
    const timeoutMs = this.#options.processTimeout
    const heartbeat = new Heartbeat(db, schema, { id, instance, version, timeoutMs }, logger)
    try {
      if (this.#options.migrate) await migrate(db, schema, { logger })
      await checkSchema(db, schema)
      await heartbeat.start()
    } catch (error) {
      await db.close().catch(() => {})
      if (error instanceof PawlError) throw error
      throw new PawlError(
        'store-unavailable',
        `Pawl cannot start: ${(error as Error).message}.`,
        'Check the database option, and that the role may use (or create) the schema.',
        error,
      )
    }
    const store = new ExecutionStore(db, schema, id, this.#options.processTimeout)
    const changeListener = new ChangeListener(db, schema)
    const encryptor = new Encryptor(this.#options.encryptionKeys)
    const engine = new Engine({
      store,
      steps: new StepStore(db, schema, id),
      watch: changeListener,
      encryptor,
      owner: id,
      storeTimeoutMs: storeTimeout,
      limits: this.#options.limits,
      logger,
    })
    const reader = new ExecutionReader(db, schema)
    const observer = new Observer({
      ...{ store, reader, changeListener, encryptor },
      storeTimeoutMs: storeTimeout,
    })
    const retention = new Retention(db, schema, this.#options.retentionInterval, logger)
    retention.start()
    const wakeups = new WakeupStore(db, schema, id, this.#options.processTimeout)
    this.#components = {
      ...{ db, store, changeListener, engine, observer, heartbeat, retention, wakeups },
      worker: null,
    }
    this.#startWorker()
    this.workflows.start({
      engine,
      store,
      reader,
      ...openWorkflowStores(db, schema, id, timeoutMs),
      announceQueues: (handlers) => heartbeat.announceQueues(handlers),
      wakeups,
      changeListener: changeListener,
      encryptor,
      storeTimeoutMs: storeTimeout,
      concurrency: this.#options.workers.concurrency,
      limits: this.#options.limits,
      logger,
    })
    this.#state = 'started'
    startedInstances.add(this)
    await this.workflows.scheduler.start()
  }

  /**
   * Takes no more keyed requests, waits for running ones (at most `drainTimeout`), releases the rest so
   * that other processes can continue them at once, and removes this process from the database. Call
   * it after the server stopped listening.
   *
   * Resolves within `drainTimeout` plus `storeTimeout`, also if the database does not answer. Then other
   * processes continue the rest once this process counts as dead, after `processTimeout`.
   */
  async stop(): Promise<void> {
    const components = this.#components
    if (this.#state !== 'started' || !components) return
    this.#state = 'stopped'
    startedInstances.delete(this)
    components.observer.stop()
    const { drainTimeout, storeTimeout, logger } = this.#options
    const hasLeft = this.#leave(components).then(() => true)
    if (await withTimeout(drainTimeout + storeTimeout, hasLeft)) return
    logger.warn('stop(): the database did not answer in time; what runs here is continued later')
  }

  /** Lets running executions end, releases the rest, and removes this process from the database. */
  async #leave(components: Components): Promise<void> {
    const { drainTimeout, storeTimeout, logger } = this.#options
    const { engine, store, retention, changeListener, heartbeat, db } = components
    const drained = performance.now() + drainTimeout
    // A poll under way may lease executions, which then run or are released; it may also not be answered.
    const polled = Promise.all([components.worker?.stop(), this.workflows.stop()])
    await withTimeout(Math.max(drainTimeout, storeTimeout), polled)
    await engine.stop(drained - performance.now())
    // Tells the workers of other processes to continue the released executions now.
    await store.notify([WORK_DUE])
    const ends = [retention.stop(), changeListener.close(), heartbeat.stop()]
    for (const end of await Promise.allSettled(ends)) {
      // The other processes delete the row once its heartbeat has expired.
      if (end.status === 'rejected')
        logger.warn('could not remove this process from the database', { error: end.reason })
    }
    await db.close()
  }

  /**
   * Reads the state of an execution; null if it does not exist.
   * @throws PawlError `not-started`, `store-unavailable`
   */
  async find(name: ExecutionName): Promise<ExecutionState | null> {
    const id = executionIdOf(name)
    const { store } = this.#requireStarted()
    const found = await retryWhileUnavailableFor(this.storeTimeoutMs, () => store.read(id))
    if (!found) return null
    const interrupted = found.status === 'running' && !found.ownerAlive
    return {
      id,
      status: interrupted ? 'interrupted' : found.status,
      attempt: found.attempt,
      responseStatus: found.outcome?.status ?? null,
    }
  }

  /**
   * Frees an execution that ended without an outcome (`unknown`, `interrupted` or `parked`). Call it after
   * a person or the app has found out what the execution did: the next retry then runs the handler again,
   * or a worker does on routes with `recover: true`.
   * @returns whether there was such an execution
   * @throws PawlError `not-started`, `store-unavailable`
   */
  async release(name: ExecutionName): Promise<boolean> {
    const { store, worker } = this.#requireStarted()
    const releaseStuck = () => store.releaseStuck(executionIdOf(name))
    const freed = await retryWhileUnavailableFor(this.storeTimeoutMs, releaseStuck)
    if (freed) {
      this.workflows.pollNow()
      worker?.pollNow()
    }
    return freed
  }

  /**
   * Lets this process finish requests of routes with `recover: true` whose process has died: it passes
   * them to the app again, in-process and without credentials. Call it once the routes are defined, before
   * or after `start()`.
   *
   * The app's authentication must admit these requests: `req.execution.recovering` is true from the start,
   * and `req.execution.scope` is the recorded scope.
   *
   * ```ts
   * pawl.recoverRequests(app) // Express; Koa: app.callback(); Fastify: fastify.routing
   * ```
   *
   * @param listener the app as a listener for Node's `http.createServer`
   */
  recoverRequests(listener: RequestListener): void {
    if (typeof listener !== 'function') {
      throw new PawlError(
        'invalid-option',
        'recoverRequests(): the app is not a function (request, response).',
        'Give the Express app, app.callback() of Koa, or fastify.routing.',
      )
    }
    this.#requestListener = listener
    this.#startWorker()
  }

  /**
   * Creates the handler of the status endpoint, to which `statusUrl` points: it tells clients the status and
   * the outcome of an execution. Works as a route handler of Express and as a listener of Node's http; the
   * last segment of the path is the execution's id.
   *
   * ```ts
   * app.get('/operations/:id', pawl.statusHandler({
   *   authorize: (req: express.Request, execution) => execution.scope === req.user.id,
   * }))
   * ```
   *
   * For an unfinished execution it responds 202 with `{ id, kind, name, status, attempt, createdAt }`, after
   * the time that the client asks it to wait (`Prefer: wait=10` or `?wait=10`). For a finished request it
   * responds with the stored response, for a finished workflow 200 with `{ id, kind, name, status, result }`
   * or `error`. With `Accept: text/event-stream` it sends server-sent events. See docs/async.md.
   *
   * @throws PawlError `invalid-option`
   */
  statusHandler<Request extends IncomingMessage = IncomingMessage>(
    options: StatusOptions<Request>,
  ): StatusHandler<Request> {
    return statusHandler(this, options)
  }

  /**
   * Creates the handler of the status endpoint for frameworks whose handlers take a `Request` and return a
   * `Response` (Hono, Next.js, SvelteKit). See `statusHandler`.
   *
   * ```ts
   * export const GET = pawl.statusResponse({
   *   authorize: async (request, execution) => execution.scope === (await userOf(request)).id,
   * })
   * ```
   *
   * The handler's promise rejects with PawlError `not-started`, and with the errors that `authorize` throws.
   *
   * @throws PawlError `invalid-option`
   */
  statusResponse(options: StatusOptions<Request>): (request: Request) => Promise<Response> {
    return statusResponse(this, options)
  }

  /** Used by Pawl's own adapters; the app must not use it. See {@link PawlLike}. */
  get '~pawl'(): object {
    return this satisfies RequestRuntime & StatusRuntime
  }

  /** @internal Used by the status handlers. */
  get observer(): Observer {
    return this.#requireStarted().observer
  }

  /** @internal @throws PawlError `recovery-impossible` if the app has not called `recoverRequests()` */
  checkRecovery(): void {
    if (this.#requestListener) return
    throw new PawlError(
      'recovery-impossible',
      'A route has recover: true, but this process does not know the app that recovered requests go to.',
      'Call pawl.recoverRequests(app) once the routes are defined.',
    )
  }

  async #recover(listener: RequestListener, leased: LeasedExecution): Promise<void> {
    const attempt = await this.engine.resume(leased)
    if (!attempt) return
    try {
      await redeliverRequest(this, listener, attempt, this.engine.decryptInput(leased))
    } finally {
      // Releases the execution if the attempt recorded no outcome; else does nothing.
      await attempt.release('released')
    }
  }

  #startWorker(): void {
    const components = this.#components
    const listener = this.#requestListener
    if (!components || !listener || components.worker || this.#state === 'stopped') return
    components.worker = new Worker({
      engine: components.engine,
      wakeups: components.wakeups,
      handlers: () => ['requests'],
      concurrency: RECOVERY_CONCURRENCY,
      run: (leased) => this.#recover(listener, leased),
      logger: this.#options.logger,
    })
    components.worker.start()
  }

  /** @internal Used by the adapters. */
  get engine(): Engine {
    return this.#requireStarted().engine
  }

  /** @internal Used by the command line. */
  get internals() {
    const isStarted = this.#state === 'started'
    return { options: this.#options, workflows: this.workflows, isStarted }
  }

  /** @internal Opens transactions in the app's database. */
  get host(): TransactionHost<unknown> {
    return this.#requireStarted().db.host
  }

  /** @internal */
  get storeTimeoutMs(): number {
    return this.#options.storeTimeout
  }

  /** @internal */
  get logger(): Logger {
    return this.#state === 'abandoned' ? SILENT : this.#options.logger
  }

  /**
   * @internal Simulates a crash, for `pawl/testing`: the process stays registered in the database, and logs
   * nothing from now on.
   */
  abandon(): void {
    this.#state = 'abandoned'
    startedInstances.delete(this)
  }

  #requireStarted(): Components {
    if (this.#components) return this.#components
    throw new PawlError('not-started', 'Pawl has not been started.', 'Await pawl.start() first.')
  }
}

const version: string = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
).version
