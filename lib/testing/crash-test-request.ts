/** Sends the request of a crash test over HTTP, and reads the whole answer. */

import http from 'node:http'

/** The request that a crash test repeats. */
export interface CrashTestRequest {
  /** The HTTP method. Default `'POST'`. */
  method?: string
  /** Path and query: `'/orders?notify=1'`. */
  path: string
  /** The headers, sent unchanged. An array is sent as several headers of the same name. */
  headers?: Record<string, string | string[]>
  /** The body; an object is sent as JSON. Default: no body. */
  body?: string | Uint8Array | object
}

/** A whole answer, as received. */
export interface RawAnswer {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

/** A request that was sent. */
export interface SentRequest {
  answer: Promise<RawAnswer>
  /** Closes its connection. */
  abort(): void
}

/** Sends the request over a new connection and reads the whole answer. */
export function sendRequest(
  url: string,
  { method = 'POST', path, headers, body }: CrashTestRequest,
): SentRequest {
  const isJson = typeof body === 'object' && body !== null && !ArrayBuffer.isView(body)
  const bytes = isJson ? JSON.stringify(body) : (body as string | Uint8Array | undefined)
  const request = http.request(new URL(path, url), {
    method,
    agent: false,
    headers: {
      ...(isJson && { 'Content-Type': 'application/json' }),
      // Without a length Node would send the body in chunks, which clients normally do not.
      ...(bytes !== undefined && { 'Content-Length': String(Buffer.byteLength(bytes)) }),
      ...headers,
    },
  })
  const answer = new Promise<RawAnswer>((resolve, reject) => {
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
  answer.catch(() => {}) // After abort(), no caller may be left to handle the rejection.
  request.end(bytes)
  return { answer, abort: () => request.destroy() }
}
