import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { IdempotentFetch, IdempotentResponse, Sender } from './idempotent-fetch.ts'
import type { RepeatableRequest } from './repeatable-request.ts'

/** A request without a final answer, as it is stored: plain data, no credentials. */
export interface PendingRequest {
  readonly key: string
  readonly url: string
  readonly method: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: Uint8Array<ArrayBuffer> | undefined
  /** Whether cookies go with it, as in fetch. */
  readonly credentials: RequestInit['credentials']
  /** Milliseconds since 1970, by the client's clock: when it was first sent. */
  readonly createdAt: number
}

/** Where pending requests are kept; `indexedDbStore`, `localStorageStore`, or your own. */
export interface PendingStore {
  /**
   * Resolves once the request is stored for good: to true, or to false and without a change if there
   * is one with this key.
   */
  add(request: PendingRequest): Promise<boolean>
  /** Does nothing if there is none with this key. */
  delete(key: string): Promise<void>
  list(): Promise<PendingRequest[]>
}

/** What became of a pending request: it has a response, or an error. */
export interface Resumed {
  readonly key: string
  readonly request: PendingRequest
  readonly response?: IdempotentResponse
  /** Why there is none: `expired`, or what the call threw; it stays pending unless expired. */
  readonly error?: unknown
}

interface LockManager {
  request<T>(
    name: string,
    options: { ifAvailable: true },
    work: (lock: unknown) => Promise<T>,
  ): Promise<T>
}

const HARMLESS_HEADERS = ['content-type', 'content-language', 'content-encoding', 'accept']
const CREDENTIALS = ['authorization', 'proxy-authorization', 'cookie']
const HOUR_MS = 3_600_000

export interface PersistOptions {
  /** Names of headers to store besides Content-Type and Accept. Credentials never are. */
  headers?: readonly string[]
  /**
   * Milliseconds after which a stored request is not repeated any more. It must be less than the
   * server keeps keys, or a repeat would be a new request. Default 23 hours.
   */
  maxAge?: number
}

/** How a client keeps its requests: what the option `persist` takes. */
export interface Persistence {
  attach(sender: Sender): ResumableFetch
}

/** A fetch that keeps its requests with a key until their answer is final. */
export interface ResumableFetch extends IdempotentFetch {
  /**
   * Repeats what was pending when the page or process ended, oldest first, one after the other. Each
   * is forgotten once your loop asks for the next one.
   */
  resume(init?: { signal?: AbortSignal }): AsyncGenerator<Resumed, void, void>
  /** What has no final answer yet, oldest first. */
  pending(): Promise<PendingRequest[]>
  /** Gives up a pending request: it will not be repeated. */
  forget(key: string): Promise<void>
}

/** Keeps pending requests in a store of your own. */
export function customStore(store: PendingStore, options: PersistOptions = {}): Persistence {
  return {
    attach(sender) {
      const kept = new PendingRequests(store, options, sender)
      const fetch: IdempotentFetch = async (input, init) => {
        const request = await sender.prepare(input, init)
        const keep = request.key !== undefined && init?.persist !== false
        return keep ? kept.send(request) : (await sender.send(request)).result
      }
      return Object.assign(fetch, {
        resume: (init: { signal?: AbortSignal } = {}) => kept.resume(init.signal),
        pending: () => kept.list(),
        forget: (key: string) => kept.forget(key),
      })
    },
  }
}

/** The keys that this page is at work on, where there are no Web Locks. */
const busy = new Set<string>()

class PendingRequests {
  readonly #store: PendingStore
  readonly #maxAge: number
  readonly #headers: readonly string[]
  readonly #sender: Sender

  constructor(store: PendingStore, options: PersistOptions, sender: Sender) {
    this.#store = store
    this.#maxAge = options.maxAge ?? 23 * HOUR_MS
    this.#headers = [...HARMLESS_HEADERS, ...(options.headers ?? [])]
      .map((name) => name.toLowerCase())
      .filter((name) => !CREDENTIALS.includes(name))
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
    return exclusively(key, async () => {
      const added = await this.#add(request, key)
      try {
        const { result, final } = await this.#sender.send(request)
        // A mismatch says nothing about the older request that is stored under this key.
        if (isFinal(result, final) && (added || result.status !== 422)) await this.#answered(key)
        return result
      } catch (error) {
        if (added && isCancelled(request.signal)) await this.#answered(key)
        throw error
      }
    })
  }

  async *resume(signal: AbortSignal | undefined): AsyncGenerator<Resumed, void, void> {
    const seen = new Set<string>()
    for (;;) {
      // Looked up each time: another tab may have finished what was there before.
      const request = (await this.list()).find(({ key }) => !seen.has(key))
      if (!request) return
      const { key } = request
      seen.add(key)
      const outcome = await exclusively(key, async (mine) => mine && this.#repeat(request, signal))
      if (!outcome) continue
      const { final, ...resumed } = outcome
      yield resumed
      // Not before: a page that ends while it handles the answer gets it once more.
      if (final) await this.forget(key)
    }
  }

  async #repeat(
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
      return await this.#store.add(pendingRequest(request, key, this.#headers))
    } catch (cause) {
      throw new IdempotentFetchError(
        'persist-failed',
        'The request could not be stored, so it was not sent.',
        { key, cause },
      )
    }
  }

  /** The answer counts, whatever becomes of the store: what stays in it brings a replay. */
  async #answered(key: string): Promise<void> {
    try {
      await this.forget(key)
    } catch (error) {
      console.warn('pawl/client: an answered request could not be removed from its store.', error)
    }
  }
}

/** @param names of the headers to store, in lower case */
function pendingRequest(
  { url, method, headers, body, input, init }: RepeatableRequest,
  key: string,
  names: readonly string[],
): PendingRequest {
  const { location } = globalThis as { location?: { href: string } }
  return {
    key,
    // Another page may be the one that resumes.
    url: location ? new URL(url, location.href).href : url,
    method,
    headers: [...headers].filter(([name]) => names.includes(name)),
    body,
    credentials: init.credentials ?? (input as Request).credentials,
    createdAt: Date.now(),
  }
}

/**
 * Whoever cancels wants no answer, and nobody to repeat the request behind their back. A signal of
 * AbortSignal.timeout() cancels nothing: its caller only waits no longer.
 */
function isCancelled(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && signal.reason?.name !== 'TimeoutError'
}

/** A 401 is about who asks, not about the request: servers do not keep it, and neither must we. */
function isFinal(response: Response, final: boolean): boolean {
  return final && response.status !== 401
}

/**
 * Runs `work` while the other tabs know that this one is at it.
 * @param work is told whether it is the only one
 */
async function exclusively<T>(key: string, work: (mine: boolean) => Promise<T>): Promise<T> {
  const name = `pawl:${key}`
  const { locks } = (globalThis as { navigator?: { locks?: LockManager } }).navigator ?? {}
  if (locks) {
    return locks.request(name, { ifAvailable: true }, (lock) => work(lock !== null))
  }
  const mine = !busy.has(name)
  busy.add(name)
  try {
    return await work(mine)
  } finally {
    if (mine) busy.delete(name)
  }
}
