/** Sends a response of Pawl through Node's ServerResponse. */

import { type ServerResponse, STATUS_CODES } from 'node:http'
import { corsExposedHeaders, type PawlResponse } from '../../http/responses.ts'
import { isHttp2 } from './server-response.ts'

/**
 * Sends a response of Pawl, in addition to the headers that are already set on `response`.
 * @param methods the methods to call. Default: those of `response`
 */
export function sendResponse(
  response: ServerResponse,
  pawlResponse: PawlResponse,
  methods: Pick<ServerResponse, 'setHeader' | 'writeHead' | 'write' | 'end'> = response,
  onEnd?: (error?: Error | null) => void,
): void {
  const { status, headers, body } = pawlResponse
  for (const [name, value] of headers) methods.setHeader.call(response, name, value)
  exposeHeaders(response, pawlResponse, methods.setHeader)
  if (status !== 204 && status !== 304 && response.req.method !== 'HEAD') {
    methods.setHeader.call(response, 'Content-Length', body.length)
  }
  response.statusCode = status
  if (!isHttp2(response)) response.statusMessage = STATUS_CODES[status] ?? ''
  methods.writeHead.call(response, status)
  // With HTTP/2, `end(chunk)` calls `this.write`, which may be overridden.
  if (isHttp2(response) && body.length > 0) methods.write.call(response, body, undefined as never)
  const rest = isHttp2(response) ? undefined : body
  methods.end.call(response, rest, undefined as never, onEnd as never)
}

function exposeHeaders(
  response: ServerResponse,
  pawlResponse: PawlResponse,
  setHeader: ServerResponse['setHeader'],
): void {
  if (!response.hasHeader('Access-Control-Allow-Origin')) return
  const given = response.getHeader('Access-Control-Expose-Headers')
  setHeader.call(response, 'Access-Control-Expose-Headers', corsExposedHeaders(given, pawlResponse))
}
