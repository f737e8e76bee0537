import { once } from 'node:events'
import http, { type IncomingMessage, type RequestListener } from 'node:http'
import { duplexPair } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { Attempt } from '../../engine/attempt.ts'
import { within } from '../../engine/retry/with-timeout.ts'
import type { RequestRuntime } from '../../http/runtime.ts'
import { openStoredRequest } from '../../http/stored-request.ts'

/** How long an answer may take to its end once nobody needs it any more, in ms. */
const GRACE_MS = 1000

/** More than any server allows its clients: what the app has accepted once, it gets again. */
const MAX_HEADERS = 1024 ** 2

/** A request that is handed to the app again, and the attempt it runs as. */
interface Recovered extends IncomingMessage {
  [RECOVERY]?: Recovery
  execution?: unknown
}

interface Recovery {
  runtime: RequestRuntime
  attempt: Attempt
  /** Whether an idempotency() has got it. */
  arrived: boolean
}

const RECOVERY = Symbol('pawl.recovery')

/**
 * Hands a stored request to the app again: through Node's own HTTP, over a connection in memory, so that
 * the app sees an ordinary request. Resolves when it is known what came of the attempt.
 * @throws what breaks the connection before the attempt has begun
 */
export async function replayRequest(
  runtime: RequestRuntime,
  listener: RequestListener,
  attempt: Attempt,
  input: Buffer,
): Promise<void> {
  const { method, url, headers, body } = openStoredRequest(input)
  const recovery: Recovery = { runtime, attempt, arrived: false }
  const options = { maxHeaderSize: MAX_HEADERS, requireHostHeader: false }
  const server = http.createServer(options, (request: Recovered, response) => {
    // On the object and not in a header: nobody can send it.
    request[RECOVERY] = recovery
    // The app's authentication runs before Pawl, and asks.
    request.execution = attempt.execution
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
  outgoing.on('error', () => {}) // It may break at any time; `once` below tells when that matters.
  outgoing.end(body)
  try {
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage]
    const end = finished(answer.resume()).catch(() => {})
    if (!recovery.arrived) warn(attempt, runtime, answer)
    // The answer is for nobody. One that flows may never end.
    else await attempt.settled
    await within(GRACE_MS, end)
  } catch (error) {
    if (!recovery.arrived) throw error
    // The handler goes on, as with any client that is gone, until its time is up.
    await attempt.settled
  } finally {
    client.destroy()
  }
}

/** The attempt that a request runs as, if it is handed to the app again by this Pawl. */
export function recoveredAttempt(
  runtime: RequestRuntime,
  request: IncomingMessage,
): Attempt | undefined {
  const recovery = (request as Recovered)[RECOVERY]
  if (recovery?.runtime !== runtime) return undefined
  recovery.arrived = true
  return recovery.attempt
}

function warn({ execution }: Attempt, runtime: RequestRuntime, answer: IncomingMessage): void {
  runtime.logger.warn('a recovered request was answered before idempotency() saw it', {
    execution: execution.id,
    status: answer.statusCode,
    hint: 'Let requests with req.execution.recovering pass your authentication.',
  })
}
