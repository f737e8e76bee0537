/** Keeps requests in a store until their response is final, and resends them after a crash or reload. */

import type { IdempotentFetch, IdempotentResponse, Sender } from './idempotent-fetch.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { RepeatableRequest } from './repeatable-request.ts'

/** A request without a final response, in the form in which it is stored: plain data, no credentials. */
export interface PendingRequest {
  readonly key: string
  readonly url: string
  readonly method: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: Uint8Array<ArrayBuffer> | undefined
  /** Whether to send cookies, as in fetch. */
  readonly credentials: RequestInit['credentials']
  /** When the request was first sent, in milliseconds since 1970, by the client's clock. */
  readonly createdAt: number
}

/** Stores pending requests. Pass your own to `customStore`. */
export interface PendingStore {
  /**
   * Resolves to true once the request is durably stored. Resolves to false, and changes nothing, if the
   * store has a request with this key.
   */
  add(request: PendingRequest): Promise<boolean>
  /** Does nothing if the store has no request with this key. */
  delete(key: string): Promise<void>
  list(): Promise<PendingRequest[]>
}

/** The result of resending a pending request: a response or an error. */
export interface Resumed {
  readonly key: string
  readonly request: PendingRequest
  readonly response?: IdempotentResponse
  /**
   * Why there is no response: an `expired` error, or the error of the call. The request stays pending
   * unless it expired.
   */
  readonly error?: unknown
}

/** The part of the Web Locks API that the client uses; Node's types do not include it. */
interface LockManager {
  request<T>(
    name: string,
    options: { ifAvailable: true },
    work: (lock: unknown) => Promise<T>,
  ): Promise<T>
}

const STORED_HEADERS = ['content-type', 'content-language', 'content-encoding', 'accept']
const CREDENTIAL_HEADERS = ['authorization', 'proxy-authorization', 'cookie']
const HOUR_MS = 3_600_000

/** Options of the stores that keep pending requests. */
export interface PersistOptions {
  /** Names of headers to store besides Content-Type and Accept. Credentials never are. */
  headers?: readonly string[]
  /**
   * Milliseconds after which a stored request is not sent again. Must be less than the time for which the
   * server keeps keys: later, it would run the request as a new one. Default 23 hours.
   */
  maxAge?: number
}

/** The value of the option `persist`: tells a client where to keep its requests. */
export interface Persistence {
  attach(sender: Sender): ResumableFetch
}

/** A fetch that keeps each request with a key until its response is final. */
export interface ResumableFetch extends IdempotentFetch {
  /**
   * Resends the requests that were pending when the page or process ended, oldest first, one after the
   * other. Each is removed from the store once your loop asks for the next one.
   */
  resume(init?: { signal?: AbortSignal }): AsyncGenerator<Resumed, void, void>
  /** The requests that have no final response yet, oldest first. */
  pending(): Promise<PendingRequest[]>
  /** Removes a pending request from the store, so that it is not sent again. */
  forget(key: string): Promise<void>
}

/** Keeps pending requests in a store of your own. */
export function customStore(store: PendingStore, options: PersistOptions = {}): Persistence {
  return {
    attach(sender) {
      const requests = new PendingRequests(store, options, sender)
      const fetch: IdempotentFetch = async (input, init) => {
        const request = await sender.prepare(input, init)
        const keep = request.key !== undefined && init?.persist !== false
        return keep ? requests.send(request) : (await sender.send(request)).result
      }
      return Object.assign(fetch, {
        resume: (init: { signal?: AbortSignal } = {}) => requests.resume(init.signal),
        pending: () => requests.list(),
        forget: (key: string) => requests.forget(key),
      })
    },
  }
}

/** The locks that this page holds, in environments without Web Locks. */
const heldLocks = new Set<string>()

/** Sends requests through a store, and resumes those that are left in it. */
class PendingRequests {
  readonly #store: PendingStore
  readonly #maxAge: number
  readonly #headers: readonly string[]
  readonly #sender: Sender

  constructor(store: PendingStore, options: PersistOptions, sender: Sender) {
    this.#store = store
    this.#maxAge = options.maxAge ?? 23 * HOUR_MS
    this.#headers = [...STORED_HEADERS, ...(options.headers ?? [])]
      .map((name) => name.toLowerCase())
      .filter((name) => !CREDENTIAL_HEADERS.includes(name))
    this.#sender = sender
  }

  /** Oldest first. */
  async list(): Promise<PendingRequest[]> {
    return (await this.#store.list()).sort((a, b) => a.createdAt - b.createdAt)
  }

  forget(key: string): Promise<void> {
    return this.#store.delete(key)
  }

  /** @throws IdempotentFetchError `persist-failed`, and nothing was sent */
  send(request: RepeatableRequest): Promise<IdempotentResponse> {
    const key = request.key as string
    return withKeyLock(key, async () => {
      const added = await this.#add(request, key)
      try {
        const { result, final } = await this.#sender.send(request)
        // A 422 (another request with this key) does not answer the older request that is stored.
        if (isFinal(result, final) && (added || result.status !== 422)) {
          await this.#forgetAnswered(key)
        }
        return result
      } catch (error) {
        if (added && isCancelledByCaller(request.signal)) await this.#forgetAnswered(key)
        throw error
      }
    })
  }

  async *resume(signal: AbortSignal | undefined): AsyncGenerator<Resumed, void, void> {
    const seen = new Set<string>()
    for (;;) {
      // Read again each time: another tab may have finished a request meanwhile.
      const request = (await this.list()).find(({ key }) => !seen.has(key))
      if (!request) return
      const { key } = request
      seen.add(key)
      const outcome = await withKeyLock(
        key,
        async (isHeld) => isHeld && this.#resend(request, signal),
      )
      if (!outcome) continue
      const { final, ...resumed } = outcome
      yield resumed
      // Only now: a page that ends while it handles the response gets it again.
      if (final) await this.forget(key)
    }
  }

  async #resend(
    request: PendingRequest,
    signal: AbortSignal | undefined,
  ): Promise<Resumed & { final: boolean }> {
    const { key, url, createdAt } = request
    if (Date.now() - createdAt > this.#maxAge) {
      const error = new IdempotentFetchError(
        'expired',
        'The request is older than maxAge: the server may have forgotten its key, and would ' +
          'run it again. Look up what became of it.',
        { key },
      )
      return { key, request, error, final: true }
    }
    try {
      const { method, body, credentials } = request
      const init = {
        key,
        method,
        headers: request.headers as [string, string][],
        ...(body && { body }),
        ...(credentials && { credentials }),
        ...(signal && { signal }),
      }
      const { result, final } = await this.#sender.send(await this.#sender.prepare(url, init))
      return { key, request, response: result, final: isFinal(result, final) }
    } catch (error) {
      if (signal?.aborted) throw error
      return { key, request, error, final: false }
    }
  }

  async #add(request: RepeatableRequest, key: string): Promise<boolean> {
    try {
      return await this.#store.add(toPendingRequest(request, key, this.#headers))
    } catch (cause) {
      throw new IdempotentFetchError(
        'persist-failed',
        'The request could not be stored, so it was not sent.',
        { key, cause },
      )
    }
  }

  /** Does not fail if the store does: a request that stays in it gets a replay when it is resent. */
  async #forgetAnswered(key: string): Promise<void> {
    try {
      await this.forget(key)
    } catch (error) {
      console.warn('pawl/client: an answered request could not be removed from its store.', error)
    }
  }
}

/** @param names of the headers to store, in lower case */
function toPendingRequest(
  { url, method, headers, body, input, init }: RepeatableRequest,
  key: string,
  names: readonly string[],
): PendingRequest {
  const { location } = globalThis as { location?: { href: string } }
  return {
    key,
    // Absolute, since a page with another address may resume it.
    url: location ? new URL(url, location.href).href : url,
    method,
    headers: [...headers].filter(([name]) => names.includes(name)),
    body,
    credentials: init.credentials ?? (input as Request).credentials,
    createdAt: Date.now(),
  }
}

/**
 * Whether the caller cancelled the request, which is then not resent. A signal of AbortSignal.timeout()
 * does not cancel it: it only ends the caller's wait.
 */
function isCancelledByCaller(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && signal.reason?.name !== 'TimeoutError'
}

/** A 401 is not final: it concerns the credentials, not the request, and servers do not record it. */
function isFinal(response: Response, final: boolean): boolean {
  return final && response.status !== 401
}

/**
 * Runs `work` while holding the lock of a key, which other tabs see, or without it if it is taken.
 * @param work is passed whether the lock is held
 */
async function withKeyLock<T>(key: string, work: (isHeld: boolean) => Promise<T>): Promise<T> {
  const name = `pawl:${key}`
  const { locks } = (globalThis as { navigator?: { locks?: LockManager } }).navigator ?? {}
  if (locks) {
    return locks.request(name, { ifAvailable: true }, (lock) => work(lock !== null))
  }
  const isHeld = !heldLocks.has(name)
  heldLocks.add(name)
  try {
    return await work(isHeld)
  } finally {
    if (isHeld) heldLocks.delete(name)
  }
}
