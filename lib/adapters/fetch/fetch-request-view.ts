/** Implements RequestView for a Request of the Fetch standard. */

import type { Attempt } from '../../engine/attempt.ts'
import { bufferStream } from '../../http/buffered-stream.ts'
import type { RequestBody } from '../../http/fingerprint.ts'
import type { BodyFailure, RequestView } from '../../http/request-view.ts'
import type { RequestRuntime } from '../../http/runtime.ts'

export class FetchRequestView implements RequestView {
  readonly #request: Request
  readonly url: string

  constructor(request: Request) {
    this.#request = request
    this.url = pathAndQuery(request.url)
  }

  get method(): string {
    return this.#request.method
  }

  header(name: string): string | undefined {
    return this.#request.headers.get(name) ?? undefined
  }

  /** One value: Fetch joins several lines with commas, and two keys joined this way are not a valid key. */
  headerLines(name: string): readonly string[] {
    const value = this.#request.headers.get(name)
    return value === null ? [] : [value]
  }

  allHeaders(): [name: string, value: string][] {
    return [...this.#request.headers]
  }

  /** Reads a clone, so that the handler can still read the request itself. */
  async readBody(maxBytes: number): Promise<RequestBody | BodyFailure> {
    const request = this.#request
    if (request.bodyUsed) return 'consumed'
    if (Number(request.headers.get('content-length')) > maxBytes) return 'too-large'
    try {
      const copy = request.clone().body
      if (!copy) return { raw: [] }
      const buffered = await bufferStream(copy, maxBytes)
      if (buffered.kind === 'complete') return { raw: [buffered.body] }
      await buffered.body.return?.()
      return 'too-large'
    } catch {
      return 'aborted'
    }
  }

  recoveredAttempt(_runtime: RequestRuntime): Attempt | undefined {
    return undefined
  }

  disconnectSignal(): AbortSignal {
    return this.#request.signal
  }
}

function pathAndQuery(url: string): string {
  const { pathname, search } = new URL(url)
  return pathname + search
}
