/** Hides from a handler that its response was already sent and closed. */

import type { ServerResponse } from 'node:http'

/** The properties by which Node shows that a response is finished or closed. */
const CLOSED_PROPERTIES = ['finished', 'destroyed', 'closed', 'writableFinished'] as const

/**
 * Makes a closed response look open, so that a handler can go on without its client. Code that pipes into
 * the response (`pipeline`, `send`) would stop if it saw one of these properties.
 * @param ended whether the handler has called `end`
 */
export function hideClosedState(response: ServerResponse, ended: () => boolean): void {
  for (const property of CLOSED_PROPERTIES) {
    Object.defineProperty(response, property, { configurable: true, get: ended, set() {} })
  }
}
