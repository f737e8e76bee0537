import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import { formatKey, keyFor } from './idempotency-key.ts'
import type { KeySettings } from './options.ts'

/** What fetch takes, and what concerns this one call only. */
export interface IdempotentRequestInit extends RequestInit {
  /** The key of this call: what is unique to the operation, such as the number of an order. */
  key?: string
  /** False: the answer's body is handed on as it arrives, not read whole within the retries. */
  buffer?: boolean
  /** False: this call is not kept by the client's `persist` store. */
  persist?: boolean
}

/** A request that can be sent any number of times, the same bytes each time. */
export interface RepeatableRequest {
  readonly input: string | URL | Request
  readonly url: string
  readonly method: string
  readonly headers: Headers
  readonly body: Uint8Array<ArrayBuffer> | undefined
  readonly key: string | undefined
  readonly signal: AbortSignal | undefined
  readonly init: IdempotentRequestInit
}

/**
 * Reads the body once, and settles the key.
 * @throws IdempotentFetchError `body-not-repeatable`, `key-malformed`; TypeError, as fetch would
 */
export async function repeatable(
  input: string | URL | Request,
  init: IdempotentRequestInit,
  settings: KeySettings,
): Promise<RepeatableRequest> {
  const given = isRequest(input) ? input : undefined
  const url = given ? given.url : String(input)
  // fetch leaves "patch" in lower case, which servers refuse.
  const method = (init.method ?? given?.method ?? 'GET').toUpperCase()
  const headers = new Headers(init.headers ?? given?.headers)
  const key = init.key ?? keyFor(url, method, headers.get(settings.header), settings)
  if (key !== undefined) headers.set(settings.header, formatKey(key, settings.quoted))
  let body: Uint8Array<ArrayBuffer> | undefined
  if (init.body != null) {
    const read = await bytesOf(init.body)
    body = read.bytes
    // With the boundary of a form: serialized again, it would be another one.
    if (read.type && !headers.has('Content-Type')) headers.set('Content-Type', read.type)
  } else if (given && method !== 'GET' && method !== 'HEAD') {
    body = new Uint8Array(await given.arrayBuffer())
  }
  const signal = (init.signal === undefined ? given : init)?.signal ?? undefined
  return { input, url, method, headers, body, key, signal, init }
}

/** By its shape: a custom fetch may come with a Request of its own. */
export function isRequest(input: string | URL | Request): input is Request {
  return typeof input === 'object' && 'method' in input
}

/**
 * A body's bytes, and the content type that goes with them, as fetch would send them.
 * @throws IdempotentFetchError `body-not-repeatable` for what can be read only once
 */
export async function bytesOf(
  body: NonNullable<RequestInit['body']>,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; type: string | null }> {
  if (typeof body === 'object' && (Symbol.asyncIterator in body || 'getReader' in body)) {
    throw new IdempotentFetchError(
      'body-not-repeatable',
      'A stream can be sent only once; nothing was sent. Read it first: ' +
        'await new Response(stream).arrayBuffer()',
    )
  }
  const whole = new Response(body)
  return {
    bytes: new Uint8Array(await whole.arrayBuffer()),
    type: whole.headers.get('Content-Type'),
  }
}
