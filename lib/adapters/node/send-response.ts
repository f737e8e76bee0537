import { type ServerResponse, STATUS_CODES } from 'node:http'
import { type Answer, exposedHeaders } from '../../http/responses.ts'
import { isHttp2 } from './server-response.ts'

/**
 * Sends an answer on top of the headers that the response already has.
 * @param methods of the response, where those it has now are not to be used
 */
export function send(
  response: ServerResponse,
  answer: Answer,
  methods: Pick<ServerResponse, 'setHeader' | 'writeHead' | 'write' | 'end'> = response,
  onEnd?: (error?: Error | null) => void,
): void {
  const { status, headers, body } = answer
  for (const [name, value] of headers) methods.setHeader.call(response, name, value)
  exposeHeaders(response, answer, methods.setHeader)
  if (status !== 204 && status !== 304 && response.req.method !== 'HEAD') {
    methods.setHeader.call(response, 'Content-Length', body.length)
  }
  response.statusCode = status
  if (!isHttp2(response)) response.statusMessage = STATUS_CODES[status] ?? ''
  methods.writeHead.call(response, status)
  // The end of an HTTP/2 response would come back to `write` for its last chunk.
  if (isHttp2(response) && body.length > 0) methods.write.call(response, body, undefined as never)
  const rest = isHttp2(response) ? undefined : body
  methods.end.call(response, rest, undefined as never, onEnd as never)
}

function exposeHeaders(
  response: ServerResponse,
  answer: Answer,
  setHeader: ServerResponse['setHeader'],
): void {
  if (!response.hasHeader('Access-Control-Allow-Origin')) return
  const given = response.getHeader('Access-Control-Expose-Headers')
  setHeader.call(response, 'Access-Control-Expose-Headers', exposedHeaders(given, answer))
}
