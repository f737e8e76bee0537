import type { Description, Sight } from '../engine/observer.ts'
import { decodeValue, plainJson } from '../engine/values/value-codec.ts'
import { type Answer, replayAnswer } from '../http/responses.ts'
import { decodeHeaders } from '../http/headers.ts'
import { ASK_AGAIN_S } from '../http/async-response.ts'
import type { Outcome } from '../store/execution-store.ts'

/** How the outcome of a workflow is recorded, and what it is called. */
const ENDINGS: Record<number, string> = { 200: 'done', 499: 'cancelled', 500: 'failed' }

/** How an execution stands that has no outcome yet. */
export function unfinishedDocument(description: Description, { status, attempt }: Sight): object {
  const { id, kind, name, createdAt } = description
  return { id, kind, name, status, attempt, createdAt }
}

/** @param waitedMs for how long the client was granted its wish to wait (RFC 7240, section 3), in ms */
export function unfinishedAnswer(
  description: Description,
  sight: Sight,
  waitedMs: number | undefined,
): Answer {
  const wait = `wait=${Math.floor((waitedMs ?? 0) / 1000)}`
  return jsonAnswer(202, unfinishedDocument(description, sight), [
    ['Retry-After', String(ASK_AGAIN_S)],
    ...(waitedMs === undefined ? [] : [['Preference-Applied', wait] satisfies [string, string]]),
  ])
}

/** What became of an execution: the response of a request as it is stored, a document of a workflow. */
export function finalAnswer(description: Description, outcome: Outcome): Answer {
  if (description.kind !== 'request') {
    return jsonAnswer(200, workflowDocument(description, outcome))
  }
  const { headers, ...answer } = replayAnswer(outcome, `urn:uuid:${description.id}`)
  // What the handler said of caches, it said of a POST. This is a GET, and for one client.
  const others = headers.filter(([name]) => !/^(cache-control|expires|age|pragma)$/i.test(name))
  return { ...answer, headers: [...others, ['Cache-Control', 'no-store']] }
}

/** The same as one document, for those who have no other place for it. */
export function finalDocument(description: Description, outcome: Outcome): object {
  const { id, kind, name } = description
  if (kind !== 'request') return workflowDocument(description, outcome)
  const { status, body } = outcome
  const headers = Object.fromEntries(
    decodeHeaders(outcome.headers).map(([name, value]) => [name.toLowerCase(), value]),
  )
  return { id, kind, name, status: 'done', response: { status, headers, ...text(body) } }
}

function workflowDocument({ id, kind, name }: Description, { status, body }: Outcome): object {
  const common = { id, kind, name, status: ENDINGS[status] ?? 'failed' }
  if (status === 200) return { ...common, result: plainJson(body) }
  const error = decodeValue(body)
  if (error instanceof Error) {
    return { ...common, error: { name: error.name, message: error.message } }
  }
  return { ...common, error: { name: 'Error', message: String(error ?? common.status) } }
}

/** A body as JSON can hold it; null: it was not kept. */
function text(body: Buffer | null): { body: string | null; encoding?: 'base64' } {
  if (!body) return { body: null }
  const text = body.toString('utf8')
  if (Buffer.from(text).equals(body)) return { body: text }
  return { body: body.toString('base64'), encoding: 'base64' }
}

function jsonAnswer(status: number, document: object, headers: Answer['headers'] = []): Answer {
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
