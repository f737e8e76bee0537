import { PawlError } from '../errors/index.ts'
import type { Answer } from './responses.ts'
import { parsePrefer } from './prefer-header.ts'
import type { RequestView } from './request-view.ts'
import type { RespondAsync, RouteOptions } from './route-options.ts'

/** What a client is told whose handler goes on without it, and when. */
export interface Later {
  /** How long the handler has before that, in ms. */
  afterMs: number
  answer: Answer
}

/** Seconds until it makes sense to ask again. */
export const ASK_AGAIN_S = 1

/** The bound of setTimeout: a longer delay would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Whether, when and with what this request is answered before its handler; undefined: never.
 * @param id of its execution
 * @throws PawlError `invalid-option`, and what the app's function throws
 */
export function laterOf<Request>(
  { respondAsync }: Pick<RouteOptions<Request>, 'respondAsync'>,
  request: Request,
  view: RequestView,
  id: string,
): Later | undefined {
  if (!respondAsync) return undefined
  const { afterMs } = respondAsync
  const preferred = parsePrefer(view.header('prefer'))
  if (!preferred.respondAsync && afterMs === undefined) return undefined
  const times = [afterMs, preferred.respondAsync ? preferred.waitMs : undefined]
  const given = times.filter((time) => time !== undefined)
  return {
    // Without a time the threshold is the server's to choose (RFC 7240, section 4.1): at once.
    afterMs: Math.min(...(given.length > 0 ? given : [0]), MAX_TIMER_MS),
    answer: accepted(id, locationOf(respondAsync, request, id), preferred.respondAsync),
  }
}

function accepted(id: string, href: string, preferred: boolean): Answer {
  return {
    status: 202,
    headers: [
      ['Content-Type', 'application/json; charset=utf-8'],
      ['Cache-Control', 'no-store'],
      ['Location', href],
      ['Retry-After', String(ASK_AGAIN_S)],
      ...(preferred ? [['Preference-Applied', 'respond-async'] satisfies [string, string]] : []),
    ],
    body: Buffer.from(JSON.stringify({ id, status: 'running', href })),
    exposed: ['Location'],
  }
}

/** @throws PawlError `invalid-option` */
function locationOf<Request>(
  { statusUrl }: RespondAsync<Request>,
  request: Request,
  id: string,
): string {
  if (typeof statusUrl === 'string') return statusUrl.replace(/:id\b/, id)
  const url = statusUrl(id, request)
  if (typeof url === 'string' && /^[\x21-\x7e]+$/.test(url)) return url
  throw new PawlError(
    'invalid-option',
    `idempotency(): Option "statusUrl" returned ${typeof url === 'string' ? JSON.stringify(url) : String(url)}.`,
    'It must return a URL reference in printable ASCII: the place of pawl.statusHandler(), with the id in it.',
  )
}
