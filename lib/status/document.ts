/** Builds the JSON documents and HTTP responses that show a client the state or the outcome of an execution. */

import type { ExecutionDescription, ExecutionSnapshot } from '../engine/observer.ts'
import { decodeValue, toPlainJson } from '../engine/values/value-codec.ts'
import { RETRY_AFTER_S } from '../http/async-response.ts'
import { decodeHeaders } from '../http/headers.ts'
import { type PawlResponse, replayResponse } from '../http/responses.ts'
import type { Outcome } from '../store/execution-store.ts'

/** The status that a workflow's outcome is recorded with → the status that clients see. */
const WORKFLOW_STATUS: Record<number, string> = { 200: 'done', 499: 'cancelled', 500: 'failed' }

/** The document of an execution that has no outcome yet. */
export function unfinishedDocument(
  description: ExecutionDescription,
  { status, attempt }: ExecutionSnapshot,
): object {
  const { id, kind, name, createdAt } = description
  return { id, kind, name, status, attempt, createdAt }
}

/**
 * The 202 response for an execution that has no outcome yet.
 * @param waitedMs how long the server waited because the client asked for it with `Prefer: wait` (RFC 7240,
 * section 3), in ms; undefined: the client sent no such header
 */
export function unfinishedResponse(
  description: ExecutionDescription,
  snapshot: ExecutionSnapshot,
  waitedMs: number | undefined,
): PawlResponse {
  const wait = `wait=${Math.floor((waitedMs ?? 0) / 1000)}`
  return jsonResponse(202, unfinishedDocument(description, snapshot), [
    ['Retry-After', String(RETRY_AFTER_S)],
    ...(waitedMs === undefined ? [] : [['Preference-Applied', wait] satisfies [string, string]]),
  ])
}

/** The response for a finished execution: of a request its stored response, of a workflow a JSON document. */
export function finalResponse(description: ExecutionDescription, outcome: Outcome): PawlResponse {
  if (description.kind !== 'request') {
    return jsonResponse(200, workflowDocument(description, outcome))
  }
  const { headers, ...response } = replayResponse(outcome, `urn:uuid:${description.id}`)
  // The handler's caching headers were meant for a POST. This is a GET, whose response is for one client only.
  const otherHeaders = headers.filter(
    ([name]) => !/^(cache-control|expires|age|pragma)$/i.test(name),
  )
  return { ...response, headers: [...otherHeaders, ['Cache-Control', 'no-store']] }
}

/** The outcome of a finished execution as a JSON document, for event streams, which cannot carry a response. */
export function finalDocument(description: ExecutionDescription, outcome: Outcome): object {
  const { id, kind, name } = description
  if (kind !== 'request') return workflowDocument(description, outcome)
  const { status, body } = outcome
  const headers = Object.fromEntries(
    decodeHeaders(outcome.headers).map(([name, value]) => [name.toLowerCase(), value]),
  )
  return { id, kind, name, status: 'done', response: { status, headers, ...encodeBody(body) } }
}

function workflowDocument(
  { id, kind, name }: ExecutionDescription,
  { status, body }: Outcome,
): object {
  const common = { id, kind, name, status: WORKFLOW_STATUS[status] ?? 'failed' }
  if (status === 200) return { ...common, result: toPlainJson(body) }
  const error = decodeValue(body)
  if (error instanceof Error) {
    return { ...common, error: { name: error.name, message: error.message } }
  }
  return { ...common, error: { name: 'Error', message: String(error ?? common.status) } }
}

/** A body as a JSON string, in base64 if it is not UTF-8; null: the body was not kept. */
function encodeBody(body: Buffer | null): { body: string | null; encoding?: 'base64' } {
  if (!body) return { body: null }
  const text = body.toString('utf8')
  if (Buffer.from(text).equals(body)) return { body: text }
  return { body: body.toString('base64'), encoding: 'base64' }
}

function jsonResponse(
  status: number,
  document: object,
  headers: PawlResponse['headers'] = [],
): PawlResponse {
  return {
    status,
    headers: [
      ['Content-Type', 'application/json; charset=utf-8'],
      ['Cache-Control', 'no-store'],
      ...headers,
    ],
    body: Buffer.from(JSON.stringify(document)),
  }
}
