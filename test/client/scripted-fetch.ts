/** What a scripted fetch was asked. */
export interface Sent {
  input: string | URL | Request
  method: string
  headers: Headers
  body: Uint8Array | undefined
  signal: AbortSignal
}

/** One step of the script: an answer, an error to reject with, or what decides when it is asked. */
export type Step = Response | Error | ((sent: Sent) => Response | Promise<Response>)

export interface ScriptedFetch {
  fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  sent: Sent[]
}

/** A fetch that answers by a script; its last step is repeated. */
export function scriptedFetch(...steps: Step[]): ScriptedFetch {
  const sent: Sent[] = []
  return {
    sent,
    async fetch(input, init = {}) {
      const request: Sent = {
        input,
        method: init.method as string,
        headers: init.headers as Headers,
        body: init.body as Uint8Array | undefined,
        signal: init.signal as AbortSignal,
      }
      const step = steps[Math.min(sent.push(request), steps.length) - 1] as Step
      if (typeof step === 'function') return step(request)
      if (step instanceof Error) throw step
      return step.clone()
    },
  }
}

/** Never answers; rejects as fetch does once it is aborted. */
export const silence = ({ signal }: Sent): Promise<Response> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

export const answer = (status: number, headers: Record<string, string> = {}, body = '') =>
  new Response([204, 304].includes(status) ? null : body, { status, headers })

/** A problem document as Pawl's server sends it. */
export const problem = (status: number, code: string, headers: Record<string, string> = {}) =>
  answer(
    status,
    { 'Content-Type': 'application/problem+json', ...headers },
    JSON.stringify({ type: `urn:pawl:problem:${code}`, status }),
  )

export const networkError = () => new TypeError('fetch failed')

/** Without delays, for tests that do not ask for time. */
export const atOnce = { baseDelay: 0, maxDelay: 0, maxRetryAfter: 0 }
