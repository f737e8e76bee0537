/** Brings answers from the wire and from the database into one form that a crash test can compare. */

import { isEncrypted } from '../engine/values/encryptor.ts'
import { decodeHeaders } from '../http/headers.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { RawAnswer } from './crash-test-request.ts'

/** An HTTP answer, in the form that the options `outcome` and `check` get it in. */
export interface CrashTestAnswer {
  status: number
  /** By lower-case name, without those that differ from message to message: Date, Set-Cookie, … */
  headers: Record<string, string | string[]>
  /** The value of a JSON body; else text, or a Buffer if it is not UTF-8; null if it was not stored. */
  body: unknown
}

// Headers that are not stored, that describe the connection, or that Pawl adds to a replay. The length
// follows from the body, which is compared itself.
const IGNORED_HEADERS = new Set([
  'access-control-expose-headers',
  'connection',
  'content-length',
  'date',
  'idempotent-replayed',
  'keep-alive',
  'set-cookie',
  'transfer-encoding',
])

export function toAnswer({ status, headers, body }: RawAnswer): CrashTestAnswer {
  const entries = Object.entries(headers) as [string, string | string[]][]
  return createAnswer(status, entries, body)
}

/** Whether the answer is a replay of a recorded outcome. */
export function isReplay({ headers }: RawAnswer): boolean {
  return headers['idempotent-replayed'] === 'true'
}

/** The code in a problem document of Pawl; null for any other answer. */
export function problemCodeOf({ body, headers }: CrashTestAnswer): string | null {
  const isProblem = /^application\/problem\+json/.test(String(headers['content-type']))
  const { type } = (isProblem && body ? body : {}) as { type?: unknown }
  const [, code] = /^urn:pawl:problem:(.+)$/.exec(String(type)) ?? []
  return code ?? null
}

/** Converts a stored outcome to an answer; null if the outcome is encrypted. */
export function outcomeToAnswer({ status, headers, body }: Outcome): CrashTestAnswer | null {
  if (isEncrypted(headers)) return null
  return createAnswer(status, decodeHeaders(headers), body)
}

function createAnswer(
  status: number,
  headers: readonly [string, string | string[]][],
  body: Buffer | null,
): CrashTestAnswer {
  const lowerCase = headers.map(([name, value]) => [name.toLowerCase(), value] as const)
  const compared = Object.fromEntries(
    lowerCase.filter(([name]) => !IGNORED_HEADERS.has(name)).sort(),
  )
  return {
    status,
    headers: compared,
    body: body && parseBody(body, String(compared['content-type'] ?? '')),
  }
}

function parseBody(body: Buffer, type: string): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    return /[/+]json\b/i.test(type) && text !== '' ? parseJson(text) : text
  } catch {
    return body
  }
}

/** Returns the text itself if it is not JSON, even if its content type says that it is. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
