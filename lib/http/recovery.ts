import { once } from 'node:events'
import http, { type IncomingMessage, type RequestListener } from 'node:http'
import { duplexPair } from 'node:stream'
import type { Attempt } from '../engine/attempt.ts'
import { decodeValue, encodeValue } from '../engine/value.ts'
import { PawlError } from '../errors.ts'
import type { Pawl } from '../pawl.ts'
import type { Body } from './fingerprint.ts'
import type { BodyFailure, RequestView } from './request-view.ts'

/** Credentials, by the names that people give them. What a request is is kept, who sent it is not. */
const CREDENTIALS = /auth|cookie|token|secret|passw|session|api-?key|csrf|signature|credential/i

/** What belongs to the connection, or is made anew. */
const OF_THE_MESSAGE =
  /^(connection|content-length|expect|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/i

interface StoredRequest {
  method: string
  url: string
  headers: [name: string, value: string][]
  body: Buffer
}

/** A request that is handed to the app again, and the attempt it runs as. */
interface Recovered extends IncomingMessage {
  [ATTEMPT]?: { pawl: Pawl; attempt: Attempt }
  execution?: unknown
}

const ATTEMPT = Symbol('pawl.recovered-attempt')

/**
 * A request as it is stored to be handed to the app again: without credentials.
 * @throws PawlError `recovery-impossible` if nothing tells what the bytes of its body were
 */
export function storedRequest(view: RequestView, body: Body | BodyFailure): Buffer {
  const headers = view
    .allHeaders()
    .filter(([name]) => !CREDENTIALS.test(name) && !OF_THE_MESSAGE.test(name))
    .map(([name, value]): [string, string] => [name, value])
  const { method, url } = view
  const stored: StoredRequest = { method, url, headers, body: bytesOf(body, view) }
  return encodeValue(stored) as Buffer
}

function bytesOf(body: Body | BodyFailure, view: RequestView): Buffer {
  if (typeof body === 'object' && 'raw' in body) return Buffer.concat(body.raw)
  const parsed = typeof body === 'object' ? body.parsed : undefined
  if (parsed instanceof Uint8Array) return Buffer.from(parsed)
  if (typeof parsed === 'string') return Buffer.from(parsed)
  if (/^application\/([\w.-]+\+)?json\b/i.test(view.header('content-type') ?? '')) {
    return Buffer.from(JSON.stringify(parsed))
  }
  throw new PawlError(
    'recovery-impossible',
    'The request body was parsed before idempotency(), so its bytes cannot be stored for recovery.',
    'Mount idempotency() before the parser on routes with recover: true.',
  )
}

/**
 * Hands a stored request to the app again: through Node's own HTTP, over a connection in memory, so that
 * the app sees an ordinary request. Resolves when the app has answered.
 * @throws what breaks the connection
 */
export async function replayRequest(
  pawl: Pawl,
  listener: RequestListener,
  attempt: Attempt,
  input: Buffer,
): Promise<void> {
  const { method, url, headers, body } = decodeValue(input) as StoredRequest
  const server = http.createServer((request: Recovered, response) => {
    // On the object and not in a header: nobody can send it.
    request[ATTEMPT] = { pawl, attempt }
    // The app's authentication runs before Pawl, and asks.
    request.execution = attempt.execution
    listener(request, response)
  })
  const [client, connection] = duplexPair()
  Object.assign(connection, { remoteAddress: '127.0.0.1', remoteFamily: 'IPv4', remotePort: 0 })
  server.emit('connection', connection)
  const outgoing = http.request({
    method,
    path: url,
    headers: [...headers, ['Content-Length', String(body.length)], ['Connection', 'close']].flat(),
    createConnection: () => client as never,
  })
  outgoing.end(body)
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage]
  answer.resume()
  await once(answer, 'close')
  if (!attempt.isSettled) {
    const { execution } = attempt
    pawl.logger.warn('a recovered request was answered before idempotency() saw it', {
      execution: execution.id,
      status: answer.statusCode,
      hint: 'Let requests with req.execution.recovering pass your authentication.',
    })
  }
}

/** The attempt that a request runs as, if it is handed to the app again by this Pawl. */
export function recoveredAttempt(pawl: Pawl, request: IncomingMessage): Attempt | undefined {
  const recovered = (request as Recovered)[ATTEMPT]
  return recovered?.pawl === pawl ? recovered.attempt : undefined
}
