/** Answers requests for the status of an execution: checks access, waits as long as the client asks, and responds. */

import { z } from 'zod'
import type { ExecutionSnapshot, Observer } from '../engine/observer.ts'
import { PawlError } from '../errors/index.ts'
import { parsePreferHeader } from '../http/prefer-header.ts'
import {
  executionNotFoundResponse,
  methodNotAllowedResponse,
  type PawlResponse,
  statusUnavailableResponse,
} from '../http/responses.ts'
import type { Logger } from '../options/logger.ts'
import {
  type Duration,
  parseOptions,
  positiveDuration,
  timerDuration,
} from '../options/parse-options.ts'
import { finalResponse, unfinishedResponse } from './document.ts'
import { eventId, statusEvents } from './event-stream.ts'

/** The execution that a client asks about, as `authorize` receives it. */
export interface ObservedExecution {
  /** A UUID, derived from scope and key. */
  readonly id: string
  /** `'request'` or `'workflow'`. */
  readonly kind: string
  /** Of a request: method and path. Of a workflow: its name. */
  readonly name: string
  /** As the `scope` option gave it; empty if the app names none. */
  readonly scope: string
  readonly key: string
}

/** Options of `pawl.statusHandler()` and `pawl.statusResponse()`. */
export interface StatusOptions<Request> {
  /**
   * Decides whether the sender of this request may see that execution and its outcome. Any result other
   * than true is answered as if the id did not exist (404). There is no default: ids are derived from scope
   * and key and can be guessed.
   */
  authorize: (request: Request, execution: ObservedExecution) => boolean | Promise<boolean>
  /** The longest that a client may wait by `Prefer: wait=10` or `?wait=10`. Default `'30s'`. */
  maxWait?: Duration
  /** How long an event stream may be silent before a comment keeps it alive. Default `'15s'`. */
  heartbeat?: Duration
}

const statusOptions = z.strictObject({
  authorize: z.custom<(...args: never[]) => unknown>((value) => typeof value === 'function', {
    message:
      'a function (request, execution) => boolean. It has no default: ids are derived from scope and key and can be guessed, so it must say whose execution this is',
  }),
  maxWait: timerDuration.default(30_000),
  heartbeat: positiveDuration.default(15_000),
})

/** What the status endpoint uses of a Pawl instance. */
export interface StatusRuntime {
  /** @throws PawlError `not-started` */
  readonly observer: Observer
  readonly logger: Logger
}

/** A status request, independent of the framework that received it. */
export interface StatusRequest {
  method: string
  /** Path and query. */
  url: string
  /** A header's value, by lower-case name. */
  header(name: string): string | undefined
  /** Fires when the client disconnects. */
  disconnectSignal: AbortSignal
}

/** What to send to the client: one response, or a stream of server-sent events. */
export type StatusReply =
  | { kind: 'response'; response: PawlResponse }
  | { kind: 'events'; events: AsyncGenerator<string, void> }

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** The status endpoint: responds with the state of one execution, or its outcome. */
export class StatusEndpoint<Request> {
  readonly #runtime: StatusRuntime
  readonly #options

  /**
   * @param what names the owner of the options in error messages
   * @throws PawlError `invalid-option`
   */
  constructor(runtime: StatusRuntime, options: StatusOptions<Request>, what: string) {
    this.#runtime = runtime
    this.#options = parseOptions(statusOptions, options, what)
  }

  /**
   * Responds to one status request.
   * @param request the framework's request, which is passed to `authorize`
   * @throws PawlError `not-started`; and any error that `authorize` throws
   */
  async handle(request: Request, statusRequest: StatusRequest): Promise<StatusReply> {
    const { method, url, header, disconnectSignal } = statusRequest
    if (method !== 'GET' && method !== 'HEAD') return respond(methodNotAllowedResponse('GET, HEAD'))
    const [path, query] = splitUrl(url)
    const id = path.split('/').filter(Boolean).at(-1) ?? ''
    if (!UUID.test(id)) return respond(executionNotFoundResponse())
    const { observer } = this.#runtime
    try {
      const description = await observer.describe(id.toLowerCase())
      if (!description || !(await this.#isAuthorized(request, description))) {
        return respond(executionNotFoundResponse())
      }
      const preferred = parsePreferHeader(header('prefer')).waitMs
      const asked = preferred ?? waitParameterMs(query)
      const streams = method === 'GET' && /\btext\/event-stream\b/i.test(header('accept') ?? '')
      const waitMs = streams ? 0 : Math.min(asked ?? 0, this.#options.maxWait)
      const isStuck = ({ status }: ExecutionSnapshot) =>
        description.kind === 'request' && STUCK_STATUSES.has(status)
      const shouldRespond = (snapshot: ExecutionSnapshot) =>
        snapshot.outcome !== null || isStuck(snapshot)
      const snapshot = await observer.until(description, shouldRespond, waitMs, disconnectSignal)
      if (!snapshot) return respond(executionNotFoundResponse())
      if (streams) {
        const lastId = header('last-event-id')
        // The client has received the last event; this status tells an EventSource not to reconnect.
        if (snapshot.outcome && lastId === eventId(description, snapshot))
          return respond(STREAM_FINISHED)
        const { heartbeat } = this.#options
        const events = statusEvents(
          observer,
          description,
          snapshot,
          lastId,
          heartbeat,
          disconnectSignal,
        )
        return { kind: 'events', events }
      }
      if (snapshot.outcome) return respond(finalResponse(description, snapshot.outcome))
      const granted = preferred === undefined ? undefined : waitMs
      return respond(unfinishedResponse(description, snapshot, granted))
    } catch (error) {
      if (!(error instanceof PawlError) || !STORE_ERRORS.has(error.code)) throw error
      this.#runtime.logger.warn('reading the status of an execution failed', {
        error,
        execution: id,
      })
      return respond(statusUnavailableResponse())
    }
  }

  async #isAuthorized(request: Request, execution: ObservedExecution): Promise<boolean> {
    const { id, kind, name, scope, key } = execution
    const authorize = this.#options.authorize as StatusOptions<Request>['authorize']
    return (await authorize(request, { id, kind, name, scope, key })) === true
  }
}

/**
 * The statuses of a request that may go on only when its client retries. They end a wait at once, so that
 * the client learns of them.
 */
const STUCK_STATUSES = new Set(['interrupted', 'released', 'parked', 'unknown'])

/** Errors of reading from the store; others come from the app. They are answered with 503. */
const STORE_ERRORS = new Set(['store-unavailable', 'store-refused', 'decryption-failed'])

/** Tells an EventSource to stop reconnecting (HTML standard, section 9.2). */
const STREAM_FINISHED: PawlResponse = {
  status: 204,
  headers: [['Cache-Control', 'no-store']],
  body: Buffer.alloc(0),
}

function respond(response: PawlResponse): StatusReply {
  return { kind: 'response', response }
}

function splitUrl(url: string): [path: string, query: string] {
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

/** The `wait` parameter of a query string, in ms. */
function waitParameterMs(query: string): number | undefined {
  const wait = new URLSearchParams(query).get('wait') ?? ''
  return /^\d{1,9}$/.test(wait) ? Number(wait) * 1000 : undefined
}
