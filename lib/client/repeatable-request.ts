/** Turns what fetch is given into a request that can be sent several times, with the same bytes. */

import { formatKey, resolveKey } from './idempotency-key.ts'
import { IdempotentFetchError } from './idempotent-fetch-error.ts'
import type { KeySettings } from './options.ts'

/** The options of one call: those of fetch, and those of the client that a call can override. */
export interface IdempotentRequestInit extends RequestInit {
  /** The key of this call: a value unique to the operation, such as the number of an order. */
  key?: string
  /** False: the response's body is streamed; a body that breaks off is not retried. */
  buffer?: boolean
  /** False: the client's `persist` store does not keep this call. */
  persist?: boolean
}

/** A request that can be sent any number of times, with the same bytes each time. */
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
 * Reads the body once, and chooses the key.
 * @throws IdempotentFetchError `body-not-repeatable`, `key-malformed`; TypeError where fetch throws one
 */
export async function toRepeatableRequest(
  input: string | URL | Request,
  init: IdempotentRequestInit,
  settings: KeySettings,
): Promise<RepeatableRequest> {
  const given = isRequest(input) ? input : undefined
  const url = given ? given.url : String(input)
  // fetch does not convert "patch" to upper case, and servers refuse the method in lower case.
  const method = (init.method ?? given?.method ?? 'GET').toUpperCase()
  const headers = new Headers(init.headers ?? given?.headers)
  const key = init.key ?? resolveKey(url, method, headers.get(settings.header), settings)
  if (key !== undefined) headers.set(settings.header, formatKey(key, settings.quoted))
  let body: Uint8Array<ArrayBuffer> | undefined
  if (init.body != null) {
    const serialized = await serializeBody(init.body)
    body = serialized.bytes
    // The type of a form contains the boundary, which serializing the form again would change.
    if (serialized.type && !headers.has('Content-Type')) {
      headers.set('Content-Type', serialized.type)
    }
  } else if (given && method !== 'GET' && method !== 'HEAD') {
    body = new Uint8Array(await given.arrayBuffer())
  }
  const signal = (init.signal === undefined ? given : init)?.signal ?? undefined
  return { input, url, method, headers, body, key, signal, init }
}

/** Checks the shape, not the class: a custom fetch may have a Request class of its own. */
export function isRequest(input: string | URL | Request): input is Request {
  return typeof input === 'object' && 'method' in input
}

/**
 * Serializes a body to the bytes and the content type that fetch would send.
 * @throws IdempotentFetchError `body-not-repeatable` for a stream, which can be read only once
 */
export async function serializeBody(
  body: NonNullable<RequestInit['body']>,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; type: string | null }> {
  if (typeof body === 'object' && (Symbol.asyncIterator in body || 'getReader' in body)) {
    throw new IdempotentFetchError(
      'body-not-repeatable',
      'A stream can be sent only once; nothing was sent. Read it first: ' +
        'await new Response(stream).arrayBuffer()',
    )
  }
  const response = new Response(body)
  return {
    bytes: new Uint8Array(await response.arrayBuffer()),
    type: response.headers.get('Content-Type'),
  }
}
