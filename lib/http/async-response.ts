/** Decides whether a client gets a 202 before its handler has finished, when, and with which status URL. */

import { PawlError } from '../errors/index.ts'
import { parsePreferHeader } from './prefer-header.ts'
import type { RequestView } from './request-view.ts'
import type { PawlResponse } from './responses.ts'
import type { RespondAsync, RouteOptions } from './route-options.ts'

/** A 202 that the client gets if the handler has not responded in time; the handler goes on. */
export interface AsyncResponse {
  /** How long the handler has before the client gets the 202, in ms. */
  afterMs: number
  response: PawlResponse
}

/** The Retry-After of an unfinished execution, in seconds. */
export const RETRY_AFTER_S = 1

/** The longest delay of setTimeout; a longer one would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * The 202 for this request; undefined if its client waits for the handler.
 * @param id the id of the request's execution
 * @throws PawlError `invalid-option`, and errors of the app's `statusUrl` function
 */
export function asyncResponseFor<Request>(
  { respondAsync }: Pick<RouteOptions<Request>, 'respondAsync'>,
  request: Request,
  view: RequestView,
  id: string,
): AsyncResponse | undefined {
  if (!respondAsync) return undefined
  const { afterMs } = respondAsync
  const preferred = parsePreferHeader(view.header('prefer'))
  if (!preferred.respondAsync && afterMs === undefined) return undefined
  const times = [afterMs, preferred.respondAsync ? preferred.waitMs : undefined]
  const given = times.filter((time) => time !== undefined)
  return {
    // If the client gives no time, the server chooses (RFC 7240, section 4.1). Pawl chooses 0.
    afterMs: Math.min(...(given.length > 0 ? given : [0]), MAX_TIMER_MS),
    response: acceptedResponse(
      id,
      resolveStatusUrl(respondAsync, request, id),
      preferred.respondAsync,
    ),
  }
}

function acceptedResponse(id: string, href: string, preferred: boolean): PawlResponse {
  return {
    status: 202,
    headers: [
      ['Content-Type', 'application/json; charset=utf-8'],
      ['Cache-Control', 'no-store'],
      ['Location', href],
      ['Retry-After', String(RETRY_AFTER_S)],
      ...(preferred ? [['Preference-Applied', 'respond-async'] satisfies [string, string]] : []),
    ],
    body: Buffer.from(JSON.stringify({ id, status: 'running', href })),
    exposedHeaders: ['Location'],
  }
}

/** @throws PawlError `invalid-option` */
function resolveStatusUrl<Request>(
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
    'It must return the URL of pawl.statusHandler() for this id, in printable ASCII.',
  )
}
