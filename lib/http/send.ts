import type { ServerResponse } from 'node:http'
import type { Outcome } from '../store/store.ts'
import { decodeHeaders, type Header } from './headers.ts'
import { type Problem, problem } from './problem.ts'

/** A whole response of Pawl's own making. */
export interface Answer {
  status: number
  headers: Header[]
  body: Buffer
}

/** What browsers may read only if a response says so (Fetch standard, section 3.3.4). */
const EXPOSED = ['Idempotent-Replayed', 'Retry-After']

// What describes a body that is not there any more.
const OF_THE_BODY =
  /^(content-(length|type|encoding|range|disposition|digest|md5)|etag|accept-ranges)$/i

export function problemAnswer({ status, headers, body }: Problem): Answer {
  return { status, headers: Object.entries(headers), body }
}

/** @param instance names the execution, for the problem that stands in for a body that was not kept */
export function replayAnswer(outcome: Outcome, instance: string): Answer {
  const { status } = outcome
  const stored = decodeHeaders(outcome.headers)
  const replayed: Header = ['Idempotent-Replayed', 'true']
  if (outcome.body) return { status, headers: [...stored, replayed], body: outcome.body }
  const detail =
    'The request was carried out with this status and these headers. Its response body was too large to store, or a stream, and cannot be sent again. Do not repeat the request with a new key.'
  const document = problemAnswer(problem('body-not-kept', detail, instance, status))
  return {
    ...document,
    headers: [...stored.filter(([name]) => !OF_THE_BODY.test(name)), ...document.headers, replayed],
  }
}

/**
 * Sends an answer on top of the headers that the response already has.
 * @param methods of the response, where those it has now are not to be used
 */
export function send(
  response: ServerResponse,
  { status, headers, body }: Answer,
  methods: Pick<ServerResponse, 'setHeader' | 'removeHeader' | 'writeHead' | 'end'> = response,
  onEnd?: (error?: Error | null) => void,
): void {
  for (const [name, value] of headers) methods.setHeader.call(response, name, value)
  exposeHeaders(response, methods.setHeader)
  if (status !== 204 && status !== 304 && response.req.method !== 'HEAD') {
    methods.setHeader.call(response, 'Content-Length', body.length)
  }
  response.statusCode = status
  methods.writeHead.call(response, status)
  methods.end.call(response, body, undefined as never, onEnd as never)
}

function exposeHeaders(response: ServerResponse, setHeader: ServerResponse['setHeader']): void {
  if (!response.hasHeader('Access-Control-Allow-Origin')) return
  const given = String(response.getHeader('Access-Control-Expose-Headers') ?? '')
  const listed = given.split(',').map((name) => name.trim())
  const lower = new Set(listed.map((name) => name.toLowerCase()))
  const missing = EXPOSED.filter((name) => !lower.has(name.toLowerCase()))
  const list = [...listed.filter(Boolean), ...missing].join(', ')
  setHeader.call(response, 'Access-Control-Expose-Headers', list)
}
