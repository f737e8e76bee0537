import { isSealed } from '../engine/values/encryptor.ts'
import { decodeHeaders } from '../http/headers.ts'
import type { Outcome } from '../store/execution-store.ts'
import type { WireAnswer } from './crash-test-request.ts'

/** An answer as `outcome` and `check` are given it. */
export interface CrashTestAnswer {
  status: number
  /** By lower-case name, without those that belong to one message: Date, Set-Cookie, Content-Length, … */
  headers: Record<string, string | string[]>
  /** What JSON parses to; else text, or a Buffer where it is no UTF-8; null if it was not kept. */
  body: unknown
}

// What is not stored, what describes the way and not the answer, and what Pawl itself adds to a replay.
// The length goes by the body, whose own bytes are compared.
const OF_THE_MESSAGE = new Set([
  'access-control-expose-headers',
  'connection',
  'content-length',
  'date',
  'idempotent-replayed',
  'keep-alive',
  'set-cookie',
  'transfer-encoding',
])

export function toAnswer({ status, headers, body }: WireAnswer): CrashTestAnswer {
  const entries = Object.entries(headers) as [string, string | string[]][]
  return compose(status, entries, body)
}

/** Whether it is a replay of a recorded outcome. */
export function isReplay({ headers }: WireAnswer): boolean {
  return headers['idempotent-replayed'] === 'true'
}

/** The code of a problem document of Pawl's; null for any other answer. */
export function problemOf({ body, headers }: CrashTestAnswer): string | null {
  const isProblem = /^application\/problem\+json/.test(String(headers['content-type']))
  const { type } = (isProblem && body ? body : {}) as { type?: unknown }
  const [, code] = /^urn:pawl:problem:(.+)$/.exec(String(type)) ?? []
  return code ?? null
}

/** An outcome as an answer; null if it is encrypted. */
export function storedAnswer({ status, headers, body }: Outcome): CrashTestAnswer | null {
  if (isSealed(headers)) return null
  return compose(status, decodeHeaders(headers), body)
}

function compose(
  status: number,
  headers: readonly [string, string | string[]][],
  body: Buffer | null,
): CrashTestAnswer {
  const lowerCase = headers.map(([name, value]) => [name.toLowerCase(), value] as const)
  const kept = Object.fromEntries(lowerCase.filter(([name]) => !OF_THE_MESSAGE.has(name)).sort())
  return { status, headers: kept, body: body && parse(body, String(kept['content-type'] ?? '')) }
}

function parse(body: Buffer, type: string): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    return /[/+]json\b/i.test(type) && text !== '' ? parseJson(text) : text
  } catch {
    return body
  }
}

/** Text that is no JSON is text, whatever its type says. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
