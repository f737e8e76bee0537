/** Delivers stored requests to the app again, after the process that ran them has died. */

import { once } from 'node:events'
import http, { type IncomingMessage, type RequestListener } from 'node:http'
import { duplexPair } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { Attempt } from '../../engine/attempt.ts'
import { withTimeout } from '../../engine/retry/with-timeout.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { decodeStoredRequest } from '../../http/stored-request.ts'

/** How long to wait for the end of the response after the attempt has ended, in ms. */
const GRACE_MS = 1000

/** Above the limit of any server, so that a request that the app once accepted is accepted again. */
const MAX_HEADERS = 1024 ** 2

/** A request that is delivered again, with the attempt that it belongs to. */
interface RedeliveredRequest extends IncomingMessage {
  [RECOVERY]?: Recovery
  execution?: unknown
}

interface Recovery {
  runtime: RequestRuntime
  attempt: Attempt
  /** Whether the request has reached an `idempotency()` of the app. */
  reachedPawl: boolean
}

const RECOVERY = Symbol('pawl.recovery')

/**
 * Delivers a stored request to the app again. It goes through Node's own HTTP over a connection in memory,
 * so that the app sees an ordinary request. Resolves when the attempt has ended.
 * @throws the connection's error, if it breaks before the request has reached `idempotency()`
 */
export async function redeliverRequest(
  runtime: RequestRuntime,
  listener: RequestListener,
  attempt: Attempt,
  input: Buffer,
): Promise<void> {
  const { method, url, headers, body } = decodeStoredRequest(input)
  const recovery: Recovery = { runtime, attempt, reachedPawl: false }
  const options = { maxHeaderSize: MAX_HEADERS, requireHostHeader: false }
  const server = http.createServer(options, (request: RedeliveredRequest, response) => {
    // A property and not a header, since a client could send a header.
    request[RECOVERY] = recovery
    // For the app's authentication, which runs before Pawl and may check `req.execution.recovering`.
    request.execution = attempt.execution
    // What the app does before Pawl, such as refusing the request, is as final as what its handler does.
    attempt.hasBegun = true
    listener(request, response)
  })
  const [client, connection] = duplexPair()
  Object.assign(connection, { remoteAddress: '127.0.0.1', remoteFamily: 'IPv4', remotePort: 0 })
  connection.once('close', () => client.destroy())
  client.once('close', () => connection.destroy())
  server.emit('connection', connection)
  const outgoing = http.request({
    method,
    path: url,
    maxHeaderSize: MAX_HEADERS,
    headers: [...headers, ['Content-Length', String(body.length)], ['Connection', 'close']].flat(),
    createConnection: () => client as never,
  })
  outgoing.on('error', () => {}) // Prevents a crash on late errors; `once` below reports an early one.
  outgoing.end(body)
  try {
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
    const end = finished(response.resume()).catch(() => {})
    if (!recovery.reachedPawl) warnNotReached(attempt, runtime, response)
    // Not the end of the response: no client needs it, and a stream may never end.
    else await attempt.settled
    await withTimeout(GRACE_MS, end)
  } catch (error) {
    if (!recovery.reachedPawl) throw error
    // The handler goes on until its timeout, as after any client's disconnect.
    await attempt.settled
  } finally {
    client.destroy()
  }
}

/** The attempt that a request belongs to; undefined unless this Pawl delivers it again. */
export function recoveredAttempt(
  runtime: RequestRuntime,
  request: IncomingMessage,
): Attempt | undefined {
  const recovery = (request as RedeliveredRequest)[RECOVERY]
  if (recovery?.runtime !== runtime) return undefined
  recovery.reachedPawl = true
  return recovery.attempt
}

function warnNotReached(
  { execution }: Attempt,
  runtime: RequestRuntime,
  response: IncomingMessage,
): void {
  runtime.logger.warn('a recovered request was answered before idempotency() saw it', {
    execution: execution.id,
    status: response.statusCode,
    hint: 'Let requests with req.execution.recovering pass your authentication.',
  })
}
