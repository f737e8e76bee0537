import http from 'node:http'

/** The request that is made again and again. */
export interface CrashTestRequest {
  /** Default `'POST'`. */
  method?: string
  /** Path and query: `'/orders?notify=1'`. */
  path: string
  /** Sent as they are; an array becomes several lines. */
  headers?: Record<string, string | string[]>
  /** An object is sent as JSON. Default: no body. */
  body?: string | Uint8Array | object
}

/** A whole answer, as it came over the wire. */
export interface WireAnswer {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

/** A request that is under way. */
export interface Sent {
  answer: Promise<WireAnswer>
  /** Gives it up. */
  drop(): void
}

/** Sends the request over a connection of its own and collects all of the answer. */
export function send(
  url: string,
  { method = 'POST', path, headers, body }: CrashTestRequest,
): Sent {
  const isJson = typeof body === 'object' && body !== null && !ArrayBuffer.isView(body)
  const bytes = isJson ? JSON.stringify(body) : (body as string | Uint8Array | undefined)
  const request = http.request(new URL(path, url), {
    method,
    agent: false,
    headers: {
      ...(isJson && { 'Content-Type': 'application/json' }),
      // Node sends a body of unknown length in chunks, which is not what clients do.
      ...(bytes !== undefined && { 'Content-Length': String(Buffer.byteLength(bytes)) }),
      ...headers,
    },
  })
  const answer = new Promise<WireAnswer>((resolve, reject) => {
    request.on('error', reject)
    request.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const { statusCode = 0, headers } = response
        resolve({ status: statusCode, headers, body: Buffer.concat(chunks) })
      })
    })
  })
  answer.catch(() => {}) // Of a request that was given up, nobody asks.
  request.end(bytes)
  return { answer, drop: () => request.destroy() }
}
