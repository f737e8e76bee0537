import http from 'node:http'

/** A whole answer, as it came over the wire. */
export interface RawResponse {
  status: number
  headers: http.IncomingHttpHeaders
  rawHeaders: string[]
  body: Buffer
  /** The body as text. */
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
  json: any
}

export interface RequestOptions {
  method?: string
  key?: string
  /** Sent as they are; an array becomes several lines. */
  headers?: Record<string, string | string[]>
  /** An object is sent as JSON. */
  body?: string | Uint8Array | object
  signal?: AbortSignal
}

/** Sends one request over a connection of its own and collects all of the answer. */
export function request(url: string, options: RequestOptions = {}): Promise<RawResponse> {
  const { method = 'POST', key, headers = {}, body, signal } = options
  return new Promise((resolve, reject) => {
    const bytes =
      body === undefined || typeof body === 'string' || body instanceof Uint8Array
        ? body
        : JSON.stringify(body)
    const isJson = bytes !== body
    const outgoing = http.request(
      url,
      {
        method,
        agent: false,
        ...(signal && { signal }),
        headers: {
          ...(isJson && { 'Content-Type': 'application/json' }),
          ...(key !== undefined && { 'Idempotency-Key': key }),
          ...headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const whole = Buffer.concat(chunks)
          const text = whole.toString()
          let json: unknown
          try {
            json = JSON.parse(text)
          } catch {}
          resolve({
            status: response.statusCode as number,
            headers: response.headers,
            rawHeaders: response.rawHeaders,
            body: whole,
            text,
            json,
          })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(bytes)
  })
}

let count = 0

/** A key that no other test uses. */
export function freshKey(): string {
  return `key-${process.pid}-${Date.now().toString(36)}-${count++}`
}
