import { z } from 'zod'
import type { Observer, Sight } from '../engine/observer.ts'
import { PawlError } from '../errors/index.ts'
import { type Answer, methodNotAllowed, notFound, statusUnknown } from '../http/responses.ts'
import { parsePrefer } from '../http/prefer-header.ts'
import type { Logger } from '../options/logger.ts'
import { type Duration, longerThanZero, parseOptions, timer } from '../options/parse-options.ts'
import { finalAnswer, unfinishedAnswer } from './document.ts'
import { eventId, statusEvents } from './event-stream.ts'

/** An execution, as `authorize` sees it. */
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
   * Whether whoever sent this request may see that execution and its outcome. Anything but true is
   * answered like an id that does not exist (404). There is no default: ids are derived from scope and key
   * and can be guessed.
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
  maxWait: timer.default(30_000),
  heartbeat: longerThanZero.default(15_000),
})

/** The parts of a Pawl that the status endpoint uses. */
export interface StatusRuntime {
  /** @throws PawlError `not-started` */
  readonly observer: Observer
  readonly logger: Logger
}

/** What is asked, whatever it came through. */
export interface StatusQuestion {
  method: string
  /** Path and query. */
  url: string
  /** A header's value, by lower-case name. */
  header(name: string): string | undefined
  /** Fires when the client is gone. */
  gone: AbortSignal
}

export type StatusReply =
  | { kind: 'answer'; answer: Answer }
  | { kind: 'events'; events: AsyncGenerator<string, void> }

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Answers how executions stand. */
export class StatusEndpoint<Request> {
  readonly #runtime: StatusRuntime
  readonly #options

  /**
   * @param what whose options these are, for messages
   * @throws PawlError `invalid-option`
   */
  constructor(runtime: StatusRuntime, options: StatusOptions<Request>, what: string) {
    this.#runtime = runtime
    this.#options = parseOptions(statusOptions, options, what)
  }

  /**
   * @param request the framework's own, for `authorize`
   * @throws PawlError `not-started`, and what `authorize` throws
   */
  async reply(request: Request, question: StatusQuestion): Promise<StatusReply> {
    const { method, url, header, gone } = question
    if (method !== 'GET' && method !== 'HEAD') return answered(methodNotAllowed('GET, HEAD'))
    const [path, query] = splitUrl(url)
    const id = path.split('/').filter(Boolean).at(-1) ?? ''
    if (!UUID.test(id)) return answered(notFound())
    const { observer } = this.#runtime
    try {
      const description = await observer.describe(id.toLowerCase())
      if (!description || !(await this.#mayObserve(request, description))) {
        return answered(notFound())
      }
      const preferred = parsePrefer(header('prefer')).waitMs
      const asked = preferred ?? secondsIn(query)
      const streams = method === 'GET' && /\btext\/event-stream\b/i.test(header('accept') ?? '')
      const waitMs = streams ? 0 : Math.min(asked ?? 0, this.#options.maxWait)
      const isStuck = ({ status }: Sight) => description.kind === 'request' && STUCK.has(status)
      const tellsNews = (sight: Sight) => sight.outcome !== null || isStuck(sight)
      const sight = await observer.until(description, tellsNews, waitMs, gone)
      if (!sight) return answered(notFound())
      if (streams) {
        const lastId = header('last-event-id')
        // It has heard all there is; this status tells an EventSource not to come back.
        if (sight.outcome && lastId === eventId(description, sight)) return answered(NO_MORE)
        const { heartbeat } = this.#options
        const events = statusEvents(observer, description, sight, lastId, heartbeat, gone)
        return { kind: 'events', events }
      }
      if (sight.outcome) return answered(finalAnswer(description, sight.outcome))
      const granted = preferred === undefined ? undefined : waitMs
      return answered(unfinishedAnswer(description, sight, granted))
    } catch (error) {
      if (!(error instanceof PawlError) || !UNREADABLE.has(error.code)) throw error
      this.#runtime.logger.warn('how an execution stands cannot be read', { error, execution: id })
      return answered(statusUnknown())
    }
  }

  async #mayObserve(request: Request, execution: ObservedExecution): Promise<boolean> {
    const { id, kind, name, scope, key } = execution
    const authorize = this.#options.authorize as StatusOptions<Request>['authorize']
    return (await authorize(request, { id, kind, name, scope, key })) === true
  }
}

/** How a request stands that may wait for its client, who should hear of it at once. */
const STUCK = new Set(['interrupted', 'released', 'parked', 'unknown'])

/** Errors of the store, not of the app. */
const UNREADABLE = new Set(['store-unavailable', 'store-refused', 'decryption-failed'])

const NO_MORE: Answer = {
  status: 204,
  headers: [['Cache-Control', 'no-store']],
  body: Buffer.alloc(0),
}

function answered(answer: Answer): StatusReply {
  return { kind: 'answer', answer }
}

function splitUrl(url: string): [path: string, query: string] {
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

function secondsIn(query: string): number | undefined {
  const wait = new URLSearchParams(query).get('wait') ?? ''
  return /^\d{1,9}$/.test(wait) ? Number(wait) * 1000 : undefined
}
