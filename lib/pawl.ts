import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener } from 'node:http'
import { replayRequest } from './adapters/node/recovery.ts'
import { Engine } from './engine/engine.ts'
import { type ExecutionName, type ExecutionState, idOf } from './engine/execution-name.ts'
import { Observer } from './engine/observer.ts'
import { after, persist } from './engine/retry/persist.ts'
import { Sealer } from './engine/values/seal.ts'
import { Worker } from './engine/worker.ts'
import { PawlError } from './errors/index.ts'
import type { Logger } from './options/logger.ts'
import { parseOptions } from './options/parse-options.ts'
import { pawlOptions } from './options.ts'
import type { PawlOptions } from './pawl-options.ts'
import type { StatusOptions } from './status/endpoint.ts'
import { type StatusHandler, statusHandler, statusResponse } from './status/handlers.ts'
import type { Database } from './store/database/database.ts'
import { openDatabase } from './store/database/open-database.ts'
import type { TransactionHost } from './store/database/transaction-host.ts'
import { describe } from './store/describe.ts'
import { checkSchema, migrate } from './store/migrate.ts'
import { Heartbeat } from './store/processes.ts'
import { QueueStore } from './store/queue-store.ts'
import { Retention } from './store/retention.ts'
import { ScheduleStore } from './store/schedule-store.ts'
import { StateStore } from './store/state-store.ts'
import { StepStore } from './store/step-store.ts'
import { DUE, Store } from './store/store.ts'
import { type Taken, WakeupStore } from './store/wakeup-store.ts'
import { Watch } from './store/watch.ts'
import { WorkflowStore } from './store/workflow-store.ts'
import { WorkflowApi } from './workflow/api.ts'

interface Parts {
  db: Database
  store: Store
  watch: Watch
  engine: Engine
  observer: Observer
  heartbeat: Heartbeat
  retention: Retention
  wakeups: WakeupStore
  /** Goes on with requests, where the app has said how. */
  worker: Worker | null
}

/** How many requests a process recovers at a time: it has its own to serve. */
const RECOVERY_CONCURRENCY = 4

const SILENT: Logger = { debug() {}, warn() {} }

/** The Pawls of this process that have started and not stopped. */
export const startedPawls = new Set<Pawl>()

/**
 * Durable idempotency for one app: one instance a process.
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
export class Pawl extends WorkflowApi {
  readonly #options
  #state: 'new' | 'started' | 'stopped' | 'abandoned' = 'new'
  #parts: Parts | null = null
  #listener: RequestListener | undefined

  /** @throws PawlError `invalid-option` */
  constructor(options: PawlOptions) {
    super()
    this.#options = parseOptions(pawlOptions, options, 'new Pawl()')
  }

  /**
   * Checks (or, with `migrate: true`, applies) the schema, registers this process and starts its
   * heartbeat.
   * @throws PawlError `schema-missing`, `schema-outdated`, `schema-newer`, `store-unavailable`
   */
  async start(): Promise<void> {
    if (this.#state === 'started') return
    const { database, schema, storeTimeout, logger } = this.#options
    const db = await openDatabase(database, storeTimeout)
    const id = randomUUID()
    const heartbeat = new Heartbeat(
      db,
      schema,
      {
        id,
        instance: this.#options.instance ?? null,
        version,
        timeoutMs: this.#options.processTimeout,
      },
      logger,
    )
    try {
      if (this.#options.migrate) {
        const applied = await migrate(db, schema)
        if (applied.length > 0) logger.debug('migrated', { schema, applied })
      }
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
    const store = new Store(db, schema, id, this.#options.processTimeout)
    const watch = new Watch(db, schema)
    const sealer = new Sealer(this.#options.encryptionKeys)
    const engine = new Engine({
      store,
      steps: new StepStore(db, schema, id),
      watch,
      sealer,
      owner: id,
      storeTimeoutMs: storeTimeout,
      limits: this.#options.limits,
      logger,
    })
    const observer = new Observer({
      store,
      watch,
      sealer,
      describe: (id) => describe(db, schema, id),
      storeTimeoutMs: storeTimeout,
    })
    const retention = new Retention(db, schema, this.#options.retentionInterval, logger)
    retention.start()
    const wakeups = new WakeupStore(db, schema, id, this.#options.processTimeout)
    this.#parts = {
      db,
      store,
      watch,
      engine,
      observer,
      heartbeat,
      retention,
      wakeups,
      worker: null,
    }
    this.#startWorker()
    this.workflows.open({
      engine,
      store,
      workflows: new WorkflowStore(db, schema, id, this.#options.processTimeout),
      queues: new QueueStore(db, schema),
      schedules: new ScheduleStore(db, schema),
      state: new StateStore(db, schema, id),
      wakeups,
      watch,
      sealer,
      storeTimeoutMs: storeTimeout,
      concurrency: this.#options.workers.concurrency,
      limits: this.#options.limits,
      logger,
    })
    this.#state = 'started'
    startedPawls.add(this)
    await this.workflows.schedules.open()
  }

  /**
   * Takes no more keyed requests, waits for those that run (at most `drainTimeout`), gives the rest
   * back so that other processes can go on at once, and removes this process from the database. Call
   * it after the server stopped listening.
   */
  async stop(): Promise<void> {
    const parts = this.#parts
    if (this.#state !== 'started' || !parts) return
    this.#state = 'stopped'
    startedPawls.delete(this)
    parts.observer.stop()
    await Promise.all([parts.worker?.stop(), this.workflows.stop()])
    await parts.engine.stop(this.#options.drainTimeout)
    // Whatever was given back goes on elsewhere at once.
    await parts.store.notify([DUE])
    try {
      await parts.retention.stop()
      await parts.watch.close()
      await parts.heartbeat.stop()
    } catch (error) {
      // Our row expires by itself.
      this.#options.logger.warn('could not say goodbye to the database', { error })
    } finally {
      await parts.db.close()
    }
  }

  /**
   * What is known of an execution; null if there is none.
   * @throws PawlError `not-started`, `store-unavailable`
   */
  async find(name: ExecutionName): Promise<ExecutionState | null> {
    const id = idOf(name)
    const { store } = this.#started()
    const found = await persist(() => store.look(id), after(this.storeTimeoutMs))
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
   * Frees an execution that ended without an outcome (`unknown`, `interrupted` or `parked`), after a
   * person or the app has found out what it did: the next retry runs the handler again, or a worker on
   * routes with `recover: true`.
   * @returns whether there was such an execution
   * @throws PawlError `not-started`, `store-unavailable`
   */
  async release(name: ExecutionName): Promise<boolean> {
    const { store } = this.#started()
    const freed = await persist(() => store.free(idOf(name)), after(this.storeTimeoutMs))
    if (freed) this.workflows.kick()
    return freed
  }

  /**
   * Lets this process finish requests of routes with `recover: true` whose process has died: it hands
   * them to the app again, in-process and without credentials. Call it once the routes are there, before
   * or after `start()`.
   *
   * The app's authentication must let them pass: `req.execution.recovering` is true from the start, and
   * `req.execution.scope` is the recorded one.
   *
   * ```ts
   * pawl.recoverRequests(app) // Express; Koa: app.callback(); Fastify: fastify.routing
   * ```
   *
   * @param listener what Node's `http.createServer` takes
   */
  recoverRequests(listener: RequestListener): void {
    if (typeof listener !== 'function') {
      throw new PawlError(
        'invalid-option',
        'recoverRequests(): the app is not a function of a request and a response.',
        'Give the Express app, app.callback() of Koa, or fastify.routing.',
      )
    }
    this.#listener = listener
    this.#startWorker()
  }

  /**
   * Tells clients how an execution stands, and its outcome: where `statusUrl` points to. A route handler of
   * Express, and a listener of Node's http; the last segment of the path is the execution's id.
   *
   * ```ts
   * app.get('/operations/:id', pawl.statusHandler({
   *   authorize: (req: express.Request, execution) => execution.scope === req.user.id,
   * }))
   * ```
   *
   * Unfinished: 202 with `{ id, kind, name, status, attempt, createdAt }`, after as long as the client is
   * ready to wait (`Prefer: wait=10` or `?wait=10`). A finished request: its stored response. A finished
   * workflow: 200 with `{ id, kind, name, status, result }` or `error`. With `Accept: text/event-stream`:
   * server-sent events. See docs/async.md.
   *
   * @throws PawlError `invalid-option`
   */
  statusHandler<Request extends IncomingMessage = IncomingMessage>(
    options: StatusOptions<Request>,
  ): StatusHandler<Request> {
    return statusHandler(this, options)
  }

  /**
   * The same for whatever takes a Request and gives a Response (Hono, Next.js, SvelteKit).
   *
   * ```ts
   * export const GET = pawl.statusResponse({
   *   authorize: async (request, execution) => execution.scope === (await userOf(request)).id,
   * })
   * ```
   *
   * Its promise rejects with PawlError `not-started`, and with what `authorize` throws.
   *
   * @throws PawlError `invalid-option`
   */
  statusResponse(options: StatusOptions<Request>): (request: Request) => Promise<Response> {
    return statusResponse(this, options)
  }

  /** @internal What the status handlers look through. */
  get observer(): Observer {
    return this.#started().observer
  }

  /** @internal @throws PawlError `recovery-impossible` if nobody here could go on with a request */
  checkRecovery(): void {
    if (this.#listener) return
    throw new PawlError(
      'recovery-impossible',
      'A route has recover: true, and this process does not know the app to hand requests to.',
      'Call pawl.recoverRequests(app) once the routes are there.',
    )
  }

  async #recover(listener: RequestListener, taken: Taken): Promise<void> {
    const attempt = await this.engine.resume(taken)
    if (!attempt) return
    try {
      await replayRequest(this, listener, attempt, this.engine.open(taken))
    } finally {
      // Whatever ended without recording anything gives it back; what has settled stays as it is.
      await attempt.release('released')
    }
  }

  #startWorker(): void {
    const parts = this.#parts
    const listener = this.#listener
    if (!parts || !listener || parts.worker || this.#state === 'stopped') return
    parts.worker = new Worker({
      engine: parts.engine,
      wakeups: parts.wakeups,
      handlers: () => ['requests'],
      concurrency: RECOVERY_CONCURRENCY,
      run: (taken) => this.#recover(listener, taken),
      logger: this.#options.logger,
    })
    parts.worker.start()
  }

  /** @internal What the adapters run on. */
  get engine(): Engine {
    return this.#started().engine
  }

  /** @internal What the command line works with. */
  get inside() {
    const isStarted = this.#state === 'started'
    return { options: this.#options, workflows: this.workflows, isStarted }
  }

  /** @internal The app's database, as a host of transactions. */
  get host(): TransactionHost<unknown> {
    return this.#started().db.host
  }

  /** @internal */
  get storeTimeoutMs(): number {
    return this.#options.storeTimeout
  }

  /** @internal */
  get logger(): Logger {
    return this.#state === 'abandoned' ? SILENT : this.#options.logger
  }

  /** @internal What a crash does, where it is only simulated: no goodbye, and not a word from now on. */
  abandon(): void {
    this.#state = 'abandoned'
    startedPawls.delete(this)
  }

  #started(): Parts {
    if (this.#parts) return this.#parts
    throw new PawlError('not-started', 'Pawl has not been started.', 'Await pawl.start() first.')
  }
}

const version: string = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
).version
