/** What the policy looks at in an answer, whichever library brought it. */
export interface Answer {
  readonly status: number
  header(name: string): string | null | undefined
  /** The `type` of its problem document (RFC 9457), if it is one. */
  problemType(): Promise<unknown>
}

/**
 * - `final`: what the caller gets.
 * - `retry`: the server failed, or asks to come back.
 * - `wait`: the server is at work on this very request.
 */
export type Verdict = 'final' | 'retry' | 'wait'

/** Of the 4xx, those that ask to come back. */
const TEMPORARY = [408, 425, 429]
/** Of the 5xx, those that another try cannot change. */
const PERMANENT = [501, 505, 506, 508, 510, 511]

/** Whether to retry; docs/client.md has the table. */
export async function judge(answer: Answer): Promise<Verdict> {
  const { status } = answer
  // A replay is the recorded outcome, be it a 500: each retry would bring it again.
  if (isReplayed(answer)) return 'final'
  if (status === 409) {
    const type = await answer.problemType()
    const known = String(type).startsWith('urn:pawl:problem:')
    const busy = known ? type === 'urn:pawl:problem:in-progress' : answer.header('Retry-After')
    return busy ? 'wait' : 'final'
  }
  const failed = status < 500 ? TEMPORARY.includes(status) : !PERMANENT.includes(status)
  return failed ? 'retry' : 'final'
}

export function isReplayed(answer: Answer): boolean {
  return answer.header('Idempotent-Replayed') === 'true'
}

/** The `type` in the text of a problem document; undefined if it has none, or is none. */
export function typeIn(text: string): unknown {
  try {
    return JSON.parse(text)?.type
  } catch {
    return undefined
  }
}

/** @param response whose body is unread, and stays so */
export function answerOf(response: Response): Answer {
  return {
    status: response.status,
    header: (name) => response.headers.get(name),
    problemType: async () => typeIn(await response.clone().text()),
  }
}
