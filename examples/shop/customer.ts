/**
 * The customer's phone: sends an order over HTTP and, when no final answer comes, sends the same
 * bytes with the same key again. This is all that a client has to do.
 */
import { setTimeout as sleep } from 'node:timers/promises'

export interface OrderRequest {
  url: string
  key: string
  body: string
}

/** One try, as it is known so far. */
export interface Try {
  /** Null while nothing has come back. */
  status: number | null
  ms: number
  replayed: boolean
  /** Which attempt of the shop's made the answer. */
  attempt: number | null
  problem: { title: string; detail: string } | null
  /** What the network said instead of an answer. */
  error: string | null
  retryInMs: number | null
}

const MAX_TRIES = 20
const FIRST_PAUSE_MS = 400
const LONGEST_PAUSE_MS = 2_000

/** Calls `hear` with each try, at its beginning and at its end. */
export async function order(
  request: OrderRequest,
  hear: (nth: number, attempt: Try) => void,
  signal: AbortSignal,
): Promise<void> {
  for (let nth = 1; nth <= MAX_TRIES; nth++) {
    hear(nth, { ...nothingYet })
    const result = await tryOnce(request, signal)
    if (signal.aborted) return
    result.retryInMs = nth < MAX_TRIES ? pauseAfter(result, nth) : null
    hear(nth, result)
    if (result.retryInMs === null) return
    await sleep(result.retryInMs, undefined, { signal }).catch(() => {})
  }
}

const nothingYet: Try = {
  status: null,
  ms: 0,
  replayed: false,
  attempt: null,
  problem: null,
  error: null,
  retryInMs: null,
}

async function tryOnce(
  { url, key, body }: OrderRequest,
  signal: AbortSignal,
): Promise<Try & Later> {
  const began = performance.now()
  const since = () => Math.round(performance.now() - began)
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': key, customer: 'ada' },
      body,
      signal,
    })
    const answer = (await response.json().catch(() => ({}))) as Record<string, unknown>
    const { title, detail, attempt } = answer
    return {
      ...nothingYet,
      status: response.status,
      ms: since(),
      replayed: response.headers.get('idempotent-replayed') === 'true',
      attempt: typeof attempt === 'number' ? attempt : null,
      problem: title ? { title: String(title), detail: String(detail ?? '') } : null,
      retryAfter: response.headers.get('retry-after'),
    }
  } catch (error) {
    return { ...nothingYet, ms: since(), error: whatHappened(error) }
  }
}

interface Later {
  retryAfter?: string | null
}

/** Null when the answer is final. */
function pauseAfter({ status, retryAfter }: Try & Later, nth: number): number | null {
  const final = status !== null && status < 500 && status !== 409 && status !== 429
  if (final) return null
  if (retryAfter && Number.isFinite(Number(retryAfter))) return Number(retryAfter) * 1_000
  return Math.min(FIRST_PAUSE_MS * 1.5 ** (nth - 1), LONGEST_PAUSE_MS)
}

function whatHappened(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause
  if (cause?.code === 'ECONNREFUSED') return 'Connection refused'
  if (cause?.code === 'ECONNRESET' || cause?.code === 'UND_ERR_SOCKET') return 'Connection lost'
  return cause?.message ?? String(error)
}
