import type { Attempt } from '../../engine/attempt.ts'
import type { Body } from '../../http/fingerprint.ts'
import { holdStream } from '../../http/buffered-stream.ts'
import type { BodyFailure, RequestView } from '../../http/request-view.ts'
import type { RequestRuntime } from '../../http/runtime.ts'

/** A request of the Fetch standard. */
export class FetchView implements RequestView {
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

  /** Fetch joins lines by a comma, so that two of them are no valid key either. */
  headerLines(name: string): readonly string[] {
    const value = this.#request.headers.get(name)
    return value === null ? [] : [value]
  }

  allHeaders(): [name: string, value: string][] {
    return [...this.#request.headers]
  }

  /** Of a copy: the handler finds the request as it was. */
  async body(maxBytes: number): Promise<Body | BodyFailure> {
    const request = this.#request
    if (request.bodyUsed) return 'consumed'
    if (Number(request.headers.get('content-length')) > maxBytes) return 'too-large'
    try {
      const copy = request.clone().body
      if (!copy) return { raw: [] }
      const held = await holdStream(copy, maxBytes)
      if (held.kind === 'whole') return { raw: [held.body] }
      await held.body.return?.()
      return 'too-large'
    } catch {
      return 'aborted'
    }
  }

  recovered(_runtime: RequestRuntime): Attempt | undefined {
    return undefined
  }

  gone(): AbortSignal {
    return this.#request.signal
  }
}

function pathAndQuery(url: string): string {
  const { pathname, search } = new URL(url)
  return pathname + search
}
